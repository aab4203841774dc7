"""Real video as a data set in the DeepStab layout, for `data.source: folder`.

Steady clips are shaken along known paths: exact pairs (`steady_*`). Shaky clips get the classical
baseline's output as a stand-in for the stable recording that nobody filmed (`shaky_*`): for them
the full-reference figures say little, the stability figures are what counts.

    python benchmarks/real_pairs.py --steady DIR --shaky DIR --out data/deepstab
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from benchmarks.quality.zoomed import smallest_zoom, warp_frames

from deepstab.data.faults import to_image
from deepstab.data.shake import ShakeSize, draw_shake, room_for, see, still_view
from deepstab.evaluation.baselines import gaussian_path_corrections
from deepstab.image import Image
from deepstab.video.frames import probe, read_frames
from deepstab.video.writer import write_video

MAX_WIDTH_PX = 960
ENCODING = {"crf": 20, "preset": "veryfast"}


def read(path: Path, num_frames: int) -> Iterator[Image]:
    for frame in islice(read_frames(path), num_frames):
        scale = min(1.0, MAX_WIDTH_PX / frame.shape[1])
        size = (round(frame.shape[1] * scale) // 2 * 2, round(frame.shape[0] * scale) // 2 * 2)
        yield np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def shake(path: Path, out: Path, index: int, num_frames: int) -> None:
    rng = np.random.default_rng([1, index])
    frames = list(read(path, num_frames))
    size = (frames[0].shape[1], frames[0].shape[0])
    rate = Fraction(probe(path).frame_rate)
    amplitude = float(np.exp(rng.uniform(np.log(0.004), np.log(0.02))))
    shaken = draw_shake(
        np.arange(len(frames)) / float(rate),
        frame_rate=float(rate),
        width=size[0],
        size=ShakeSize(amplitude, readout=0.0, scale=room_for(amplitude)),
        rng=rng,
    )
    still = still_view(room_for(amplitude))
    sides = {
        "stable": (see(frame, still, size) for frame in frames),
        "unstable": (see(frame, shaken.views[i], size) for i, frame in enumerate(frames)),
    }
    for side, seen in sides.items():
        name = f"steady_{path.stem}.mp4"
        write_video(out / side / name, map(to_image, seen), frame_rate=rate, **ENCODING)


def imitate(path: Path, out: Path, num_frames: int) -> None:
    frames = list(read(path, num_frames))
    height, width = frames[0].shape[:2]
    rate = Fraction(probe(path).frame_rate)
    corrections = gaussian_path_corrections(frames, sigma_frames=15)
    zoom = smallest_zoom(corrections, width=width, height=height, max_zoom=1.3)
    name = f"shaky_{path.stem}.mp4"
    write_video(out / "unstable" / name, frames, frame_rate=rate, **ENCODING)
    steady = warp_frames(frames, corrections, zoom=zoom)
    write_video(out / "stable" / name, steady, frame_rate=rate, **ENCODING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steady", type=Path, required=True)
    parser.add_argument("--shaky", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=120, help="of each clip, at most")
    args = parser.parse_args()
    for side in ("stable", "unstable"):
        (args.out / side).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(shake, path, args.out, index, args.frames)
            for index, path in enumerate(sorted(args.steady.glob("*.mp4")))
        ]
        shaky = sorted(args.shaky.glob("*.mp4"))
        jobs += [pool.submit(imitate, path, args.out, args.frames) for path in shaky]
        for job in jobs:
            job.result()
    print(f"{len(jobs)} pairs in {args.out}")


if __name__ == "__main__":
    main()
