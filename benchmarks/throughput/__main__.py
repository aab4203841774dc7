"""How fast is it beside what the machine, a plain transcode and vid.stab do in the same run?

    python -m benchmarks.throughput --clips FOLDER [--repeats 3]

Prints one table. The longest clip of 1280x720 is repeated and scaled to the other sizes; for the
flow stage, all are repeated to the length of DeepStab's. Needs ffmpeg, and a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.clips import find_clips
from benchmarks.quality.vidstab import vidstab_available
from benchmarks.throughput.rows import as_text
from benchmarks.throughput.stages import measure_stages
from benchmarks.throughput.videos import (
    measure_planning,
    measure_start,
    measure_videos,
    repeated,
)

from deepstab.config import load_params
from deepstab.errors import DeepStabError, VideoError
from deepstab.video.frames import probe

# Of the flow stage: so many videos that no core waits long for the last. Each round of clips is
# a second longer than the one before, because videos of the same content are computed once.
_FLOW_VIDEOS_PER_CORE, _FLOW_SECONDS = 4, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos, some of 720p")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of each command; the fastest counts"
    )
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: give at least 1")
    if shutil.which("ffmpeg") is None:
        raise VideoError("ffmpeg is not installed, and is what this compares with; install it")
    clips = [clip for clip in find_clips(args.clips) if _size(clip) == (1280, 720)]
    if not clips:
        raise VideoError(f"{args.clips}: no clip is 1280x720; name a folder with one")
    flow = load_params(Path("params.deepstab.yaml")).flow
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        wanted = ((length, clip) for length in itertools.count(_FLOW_SECONDS) for clip in clips)
        num_videos = _FLOW_VIDEOS_PER_CORE * len(os.sched_getaffinity(0))
        videos = [
            repeated(clip, Path(folder), 720, seconds)
            for seconds, clip in itertools.islice(wanted, num_videos)
        ]
        longest = max(clips, key=lambda clip: probe(clip).num_frames or 0)
        rows = [
            *measure_start(),
            *measure_planning(),
            *measure_stages(videos, Path(folder), flow, args.repeats),
            *measure_videos(longest, Path(folder), args.repeats),
        ]
    print(as_text(rows))
    if not vidstab_available():
        print("vid.stab is left out: there is no ffmpeg built with it on this machine")


def _size(clip: Path) -> tuple[int, int]:
    info = probe(clip)
    return info.width, info.height


if __name__ == "__main__":
    try:
        main()
    except DeepStabError as error:
        sys.exit(f"error: {error}")
