"""Does training move what a viewer sees: trained against untrained weights, all else equal?

Nothing is rendered: the points of each clip are followed once by both trackers of
`deepstab.metrics.track`, and mapped through the corrections that each network's motion leads to.
Untrained is the same architecture freshly initialized. Prints the track jitter (px at width 640)
of every clip, geometric means over the clips, and the ratio trained / untrained with the 95 %
interval of a paired bootstrap over the clips. Where there are several weights (one training with
several seeds) the last line is about the mean of their logarithms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from benchmarks.quality.measure import find_clips
from numpy.typing import NDArray

from deepstab.cli.videos import parse_crop
from deepstab.config import ModelParams, NetworkParams
from deepstab.data.flow import with_flow
from deepstab.errors import CheckpointError, DataError, DeepStabError
from deepstab.image import Image
from deepstab.metrics.ratios import geometric_mean
from deepstab.metrics.track import TrackJitter, correct_tracks, find_tracks, measure_tracks
from deepstab.models.checkpoints import load_weights
from deepstab.models.generator import StabGenerator
from deepstab.progress import progress
from deepstab.stabilize.estimates import estimate_motion
from deepstab.stabilize.whole_video import (
    Crop,
    PlannedVideo,
    plan_motion,
    smoothing_period,
)
from deepstab.video.frames import VideoInfo, probe, read_frames

INPUT = "input"
UNTRAINED = "untrained"
RESAMPLES = 10_000

_COLUMN = 22

Frames = list[tuple[Image, NDArray[np.float32]]]


@dataclass(frozen=True)
class Contest:
    """What is compared: weights by name (None: those that ship), and seeds of untrained ones."""

    weights: dict[str, str | None]
    num_seeds: int
    crop: Crop


@dataclass(frozen=True)
class Figures:
    """One clip: track jitter by tracker and by name, and by name the side of what is shown.

    Names are `input`, `untrained 0` and so on for each seed, and those of the weights.
    """

    clip: str
    jitter: dict[str, dict[str, TrackJitter]]
    zoom: dict[str, float]


def networks(contest: Contest) -> tuple[dict[str, StabGenerator], NetworkParams]:
    """The untrained and the trained generators by name, and the parameters they share.

    Raises:
        CheckpointError: weights cannot be loaded, are of a head that sees no motion, or of another
            network or flow than the others.
    """
    checkpoints = {name: load_weights(path) for name, path in contest.weights.items()}
    first, *_ = checkpoints
    params = checkpoints[first].params
    if params.model.head != "motion":
        raise CheckpointError(f"weights {first} have head {params.model.head}; use head: motion")
    for name, checkpoint in checkpoints.items():
        if (checkpoint.params.model, checkpoint.params.flow) != (params.model, params.flow):
            raise CheckpointError(
                f"weights {name} are of another network or flow than {first}; compare them apart"
            )
    found = {}
    for seed in range(contest.num_seeds):
        torch.manual_seed(seed)
        found[f"{UNTRAINED} {seed}"] = StabGenerator(params.model).eval()
    trained = {name: checkpoint.build_generator() for name, checkpoint in checkpoints.items()}
    return found | trained, params


def plan_clip(
    frames: Frames, info: VideoInfo, generator: StabGenerator, crop: Crop, model: ModelParams
) -> PlannedVideo:
    """The corrections of a clip as `deepstab.stabilize.whole_video.stabilize_video` plans them."""
    moved = estimate_motion(
        frames,
        generator,
        aspect=info.width / info.height,
        context_frames=model.learned_steps + 1,
    )
    period = smoothing_period(float(info.frame_rate))
    return plan_motion(moved, crop, period=period, wobble_sigma=model.wobble_sigma)


def measure_clip(folder: Path, contest: Contest, clip: Path) -> Figures:
    """Measure a clip, a path in the folder, and what each network's plan would make of it.

    Raises:
        DataError: no frame has enough tracks, or the clip does not move at all.
    """
    path = folder / clip
    generators, params = networks(contest)
    info = probe(path)
    tracks = find_tracks(read_frames(path))
    jitter = {tracker: {INPUT: measure_tracks(found)} for tracker, found in tracks.items()}
    for tracker, by_name in jitter.items():
        if not by_name[INPUT].jitter_px > 0:
            raise DataError(
                f"{clip}: track jitter {by_name[INPUT].jitter_px} ({tracker}) has no ratio; "
                "take the clip out of the folder"
            )
    size = (params.flow.width, params.flow.height)
    frames: Frames = list(with_flow(read_frames(path, size=size), params.flow))
    zoom = {}
    for name, generator in generators.items():
        planned = plan_clip(frames, info, generator, contest.crop, params.model)
        zoom[name] = planned.plan.zoom
        thetas = planned.thetas()
        for tracker, found in tracks.items():
            jitter[tracker][name] = measure_tracks(correct_tracks(found, thetas))
    return Figures(clip.as_posix(), jitter, zoom)


def measure_clips(folder: Path, contest: Contest, *, num_workers: int) -> list[Figures]:
    """Measure the clips of a folder, each in one process on one core."""
    clips = [path.relative_to(folder) for path in find_clips(folder)]
    networks(contest)  # Fail now, not in every clip.
    with (
        progress(len(clips), label="learning", unit="clips") as bar,
        ProcessPoolExecutor(
            num_workers,
            # A fork would inherit the locks of threads that it does not have.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_use_one_thread,
        ) as pool,
    ):
        found = []
        for figures in pool.map(partial(measure_clip, folder, contest), clips):
            found.append(figures)
            bar.advance()
    return found


def bootstrap_interval(log_ratios: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of a geometric mean of ratios, clips drawn again with replacement.

    Args:
        log_ratios: (num_clips,), natural logarithms.
    """
    drawn = np.random.default_rng(0).integers(len(log_ratios), size=(RESAMPLES, len(log_ratios)))
    low, high = np.percentile(log_ratios[drawn].mean(axis=1), [2.5, 97.5])
    return float(np.exp(low)), float(np.exp(high))


def report(clips: list[Figures], weights: list[str]) -> str:
    """Tables of the clips and of their means, and as the last line `trained/untrained R`."""
    trackers = list(clips[0].jitter)
    lines = [line for tracker in trackers for line in tracker_table(clips, tracker, weights)]
    zooms = {name: np.mean([clip.zoom[name] for clip in clips]) for name in clips[0].zoom}
    lines += ["crop: " + ", ".join(f"{name} {zoom:.3f}" for name, zoom in zooms.items()), ""]
    logs = {tracker: log_ratios(clips, tracker, weights) for tracker in trackers}
    logs["both trackers"] = np.mean(list(logs.values()), axis=0)
    lines.append(
        "trained/untrained, geometric mean and its 95 % interval by bootstrap over the clips"
    )
    for tracker, by_weights in logs.items():
        named = dict(zip(weights, by_weights, strict=True))
        if len(weights) > 1:
            named["mean"] = by_weights.mean(axis=0)
        for name, of_clips in named.items():
            low, high = bootstrap_interval(of_clips)
            ratio = f"{np.exp(of_clips.mean()):.3f} [{low:.3f}, {high:.3f}]"
            lines.append(row(f"{tracker}, {name}", [ratio]))
    ratio = f"{np.exp(logs['both trackers'].mean()):.3f}"
    return "\n".join([*lines, f"trained/untrained {ratio}"])


def tracker_table(clips: list[Figures], tracker: str, weights: list[str]) -> list[str]:
    """Lines with each clip's track jitter, and what lies beyond a similarity over the input's."""
    names = [INPUT, UNTRAINED, *weights]
    jitter = {name: over_seeds(clips, tracker, name, "jitter_px") for name in names}
    beyond = {name: over_seeds(clips, tracker, name, "beyond_similarity_px") for name in names}
    table = np.stack([*jitter.values(), *(jitter[name] / jitter[UNTRAINED] for name in weights)])
    lines = [row(f"[{tracker}] px", [*names, *(f"{name}/{UNTRAINED}" for name in weights)])]
    lines += [
        row(clip.clip, [f"{value:.3f}" for value in column])
        for clip, column in zip(clips, table.T, strict=True)
    ]
    lines.append(row("geometric mean", [f"{geometric_mean(list(line)):.3f}" for line in table]))
    shares = [geometric_mean(list(beyond[name] / beyond[INPUT])) for name in names]
    lines.append(row("beyond similarity / input", [f"{share:.3f}" for share in shares]))
    measured = [clip.jitter[tracker][INPUT] for clip in clips]
    counted, left_out = (
        sum(getattr(found, attribute) for found in measured)
        for attribute in ("num_frames", "num_left_out")
    )
    return [*lines, f"input: {counted} frames counted, {left_out} left out", ""]


def log_ratios(clips: list[Figures], tracker: str, weights: list[str]) -> NDArray[np.float64]:
    """Logarithms of track jitter, trained / untrained, (num_weights, num_clips)."""
    untrained = over_seeds(clips, tracker, UNTRAINED, "jitter_px")
    return np.log([over_seeds(clips, tracker, name, "jitter_px") / untrained for name in weights])


def over_seeds(
    clips: list[Figures], tracker: str, name: str, attribute: str
) -> NDArray[np.float64]:
    """A figure of each clip, (num_clips,); of `untrained` the geometric mean over its seeds."""
    return np.array(
        [
            geometric_mean(
                [
                    getattr(measured, attribute)
                    for key, measured in clip.jitter[tracker].items()
                    if key == name or (name == UNTRAINED and key.startswith(f"{UNTRAINED} "))
                ]
            )
            for clip in clips
        ]
    )


def row(title: str, cells: list[str]) -> str:
    """A line of a table: a wide title and columns as wide as their names need."""
    return f"{title:34}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells)


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
    clips = measure_clips(args.clips, contest, num_workers=args.workers)
    print(report(clips, list(weights)))


def _use_one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


if __name__ == "__main__":
    try:
        main()
    except DeepStabError as error:
        sys.exit(f"error: {error}")
