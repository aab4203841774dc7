"""Does training move what a viewer sees: trained against untrained weights, all else equal?

Untrained is the same architecture freshly initialized. Prints the track jitter (px at width 640)
of every clip, geometric means over the clips, and the ratio trained / untrained with the 95 %
interval of a paired bootstrap over the clips. With --shaken the same is said, before that, of the
error of the motion on real clips shaken by us. Where there are several weights (one training with
several seeds) the last line is about the mean of their logarithms.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.learning import shaken, tracks
from benchmarks.learning.contest import INPUT, UNTRAINED, Contest, networks

from deepstab.api import parse_crop
from deepstab.errors import DeepStabError
from deepstab.stabilization.whole_video import Crop


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a checkpoint, one for each training; without any, the weights that ship",
    )
    parser.add_argument(
        "--shaken",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="shake its videos and measure the motion error too; may be given several times",
    )
    parser.add_argument("--seeds", type=int, default=1, help="untrained networks to average over")
    parser.add_argument("--crop", default="auto", help="as of `deepstab stabilize`")
    parser.add_argument("--workers", type=int, default=1, help="processes, a clip on a core each")
    args = parser.parse_args()
    for entry in args.weights:
        name, _, path = entry.partition("=")
        if not (name and path) or name.startswith((INPUT, UNTRAINED)):
            parser.error(f"--weights {entry}: give NAME=PATH, not named {INPUT} or {UNTRAINED}")
    for name in ("seeds", "workers"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: give at least 1")
    return args


def main() -> None:
    args = parse_args()
    weights: dict[str, str | None] = dict(entry.split("=", 1) for entry in args.weights)
    weights = weights or {"shipped": None}
    mode, fraction = parse_crop(args.crop)
    contest = Contest(weights, args.seeds, Crop(mode=mode, fraction=fraction))
    networks(contest)  # Fail now, not in every clip.
    if args.shaken:
        errors = shaken.measure_folders(args.shaken, contest, num_workers=args.workers)
        print(shaken.report(errors, list(weights)), flush=True)
    clips = tracks.measure_clips(args.clips, contest, num_workers=args.workers)
    print(tracks.report(clips, list(weights)))


if __name__ == "__main__":
    try:
        main()
    except DeepStabError as error:
        sys.exit(f"error: {error}")
