"""How much faster is a training clip from the flow cache than from the video?

Times one 32-frame clip read from shards against decoding, resizing and Farneback flow of the same
frames, in one process and one run, and prints the ratio. Needs `dvc repro flow`.
"""

import time
from itertools import islice
from pathlib import Path

import numpy as np

from deepstab.config import load_params
from deepstab.data.clips import read_clip
from deepstab.data.flow import farneback
from deepstab.data.manifest import MANIFEST_NAME, Manifest
from deepstab.data.shard_reader import ShardReader
from deepstab.data.shards import ShardIndex
from deepstab.video.frames import read_frames

CLIPS = 12


def main() -> None:
    params = load_params(Path("params.yaml"))
    index = ShardIndex.load(Path("data/shards"))
    manifest = Manifest.load(Path("data/raw") / MANIFEST_NAME)
    reader = ShardReader(index)
    length = params.model.clip_length
    size = (params.flow.width, params.flow.height)
    cached, computed = [], []
    for pair, entry in list(zip(manifest.pairs, index.pairs, strict=True))[:CLIPS]:
        start = time.perf_counter()
        read_clip(reader, entry, 0, length)
        cached.append(time.perf_counter() - start)
        start = time.perf_counter()
        for path, with_flow in ((pair.unstable.path, True), (pair.stable.path, False)):
            resized = list(islice(read_frames(Path("data/raw") / path, size=size), length))
            if with_flow:
                list(farneback(resized, params.flow))
        computed.append(time.perf_counter() - start)
    print(f"from shards      {1e3 * np.median(cached):8.1f} ms per clip of {length} frames")
    print(f"from the videos  {1e3 * np.median(computed):8.1f} ms per clip")
    print(f"ratio            {np.median(computed) / np.median(cached):8.1f} x")


if __name__ == "__main__":
    main()
