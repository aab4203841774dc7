"""How steady do videos become, and at what cost: ours beside what people use?

Stabilizes every clip of a folder by the classical recipe, ffmpeg's vid.stab and the learned method,
with the same encoder settings, and scores what they wrote; subfolders named shaky and steady are
reported apart. Writes clips.csv (each method on each clip), summary.csv and clips.png, and prints
the summary with what it is relative to the input's.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.clips import find_clips
from benchmarks.quality import measure as quality
from benchmarks.quality import tables as scoreboard
from benchmarks.quality.measure import Method, Settings
from benchmarks.quality.vidstab import vidstab_available

from deepstab.api import parse_crop
from deepstab.errors import DeepStabError
from deepstab.progress import progress
from deepstab.stabilization.before_after import save_plot
from deepstab.stabilization.whole_video import Crop, Encoding, Smoothing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos")
    parser.add_argument("--out", type=Path, default=Path("build/quality"), help="folder to write")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="one more checkpoint to compare; the name `ours` replaces the weights that ship",
    )
    parser.add_argument("--frames", type=int, help="of each clip, at most; all without")
    parser.add_argument("--workers", type=int, default=1, help="processes; they share the cores")
    parser.add_argument("--crop", default="auto", help="as of `deepstab stabilize`")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--crf", type=int, default=18)
    parser.add_argument("--preset", default="veryfast")
    args = parser.parse_args()
    for entry in args.weights:
        if not all(entry.partition("=")):
            parser.error(f"--weights {entry}: give NAME=PATH")
    for name in ("frames", "workers"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: give at least 1")
    return args


def methods_of(weights: list[str]) -> list[Method]:
    learned: dict[str, str | None] = {"ours": None}
    for entry in weights:
        name, _, path = entry.partition("=")
        learned[name] = path
    return [
        Method("gaussian", "gaussian"),
        *([Method("vid.stab", "vidstab")] if vidstab_available() else []),
        *(Method(name, "learned", path) for name, path in learned.items()),
    ]


def main() -> None:
    args = parse_args()
    mode, fraction = parse_crop(args.crop)
    settings = Settings(
        smoothing=Smoothing(Crop(mode=mode, fraction=fraction), args.strength),
        encoding=Encoding(crf=args.crf, preset=args.preset),
        max_frames=args.frames,
    )
    num_clips = len(find_clips(args.clips))
    with progress(num_clips, label="quality", unit="clips") as bar:
        rows = quality.measure_folder(
            args.clips,
            methods_of(args.weights),
            settings,
            num_workers=args.workers,
            on_clip=bar.advance,
        )
    summaries = scoreboard.summarize(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "clips.csv").write_text(scoreboard.as_csv(rows))
    (args.out / "summary.csv").write_text(scoreboard.as_csv(summaries))
    save_plot(scoreboard.draw(rows), args.out / "clips.png")
    print(scoreboard.as_text(summaries))
    if not vidstab_available():
        print("vid.stab is left out: there is no ffmpeg built with it on this machine")
    if args.workers > 1:
        print(
            f"frames/s: {args.workers} clips at a time shared the cores; use --workers 1 for speed"
        )
    print(f"each clip: {args.out}/clips.csv and clips.png; this table: {args.out}/summary.csv")
    failed = [row for row in rows if row.error]
    for row in failed:
        print(f"error: {row.clip}, {row.method}: {row.error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except DeepStabError as error:
        sys.exit(f"error: {error}")
