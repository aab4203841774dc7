"""The animation of README: a video before and after, side by side, as WebP that pages play.

python benchmarks/animation.py CLIP docs/pictures/before-after.webp [--start S --seconds S]
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import deepstab
from deepstab.video.frames import probe, read_frames

GAP_PX, QUALITY = 6, 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--start", type=float, default=0.0, help="s")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--width", type=int, default=400, help="of each side, px")
    parser.add_argument("--every", type=int, default=2, help="n-th frame")
    args = parser.parse_args()
    info = probe(args.clip)
    rate = float(info.frame_rate)
    height = round(args.width * info.height / info.width)
    first, last = round(args.start * rate), round((args.start + args.seconds) * rate)
    with tempfile.TemporaryDirectory() as folder:
        steady = Path(folder) / "steady.mp4"
        deepstab.stabilize(args.clip, steady)
        both = zip(read_frames(args.clip), read_frames(steady), strict=True)
        pictures = []
        for sides in islice(both, first, last, args.every):
            before, after = (
                cv2.resize(side, (args.width, height), interpolation=cv2.INTER_AREA)
                for side in sides
            )
            gap = np.full((height, GAP_PX, 3), 255, np.uint8)
            pictures.append(Image.fromarray(np.hstack([before, gap, after])))
    args.target.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        args.target,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * args.every / rate),
        loop=0,
        quality=QUALITY,
        method=6,
    )
    print(f"{args.target}: {len(pictures)} pictures, {args.target.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
