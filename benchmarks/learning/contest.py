"""Trained against untrained networks: who takes part, and how ratios over clips are told.

What several seeds of one training reach is told as the mean of the logarithms of each clip's
ratios; the clips are then drawn again with replacement (a paired bootstrap).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deepstab.config import NetworkParams
from deepstab.errors import CheckpointError
from deepstab.image import Image
from deepstab.metrics.ratios import geometric_mean
from deepstab.models.checkpoints import load_weights
from deepstab.models.generator import StabGenerator, motion_seer
from deepstab.progress import progress
from deepstab.stabilization.estimates import VideoMotion, estimate_motion
from deepstab.stabilization.whole_video import Crop

INPUT = "input"
UNTRAINED = "untrained"
RESAMPLES = 10_000

_TITLE, _COLUMN = 46, 22

Frames = list[tuple[Image, NDArray[np.float32]]]
Floats = NDArray[np.float64]
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Contest:
    """What is compared: weights by name (None: those that ship), and seeds of untrained ones."""

    weights: dict[str, str | None]
    num_seeds: int
    crop: Crop


def networks(contest: Contest) -> tuple[dict[str, StabGenerator], NetworkParams]:
    """The untrained and the trained generators by name, and the parameters they share.

    Names are `untrained 0` and so on for each seed, and those of the weights.

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


def see_motion(
    frames: Frames, generator: StabGenerator, *, aspect: float, params: NetworkParams
) -> VideoMotion:
    """How the camera moved, as `deepstab.stabilization.whole_video.plan_file` finds it."""
    return estimate_motion(
        frames, motion_seer(generator), aspect=aspect, context_frames=params.model.learned_steps + 1
    )


def in_processes(
    measure: Callable[[Job], Result], jobs: Sequence[Job], *, label: str, num_workers: int
) -> list[Result]:
    """Measure clips, each in one process on one core, and show how far it is."""
    with (
        progress(len(jobs), label=label, unit="clips") as bar,
        ProcessPoolExecutor(
            num_workers,
            # A fork would inherit the locks of threads that it does not have.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_use_one_thread,
        ) as pool,
    ):
        found = []
        for result in pool.map(measure, jobs):
            found.append(result)
            bar.advance()
    return found


def over_seeds(values: Mapping[str, float], name: str) -> float:
    """A clip's figure by name; of `untrained` the geometric mean over its seeds."""
    if name != UNTRAINED:
        return values[name]
    return geometric_mean(
        [value for key, value in values.items() if key.startswith(f"{UNTRAINED} ")]
    )


def log_ratios(figures: Mapping[str, Floats], weights: Sequence[str]) -> Floats:
    """Logarithms of trained / untrained, (num_weights, num_clips)."""
    return np.log([figures[name] / figures[UNTRAINED] for name in weights])


def bootstrap_interval(log_ratios: Floats) -> tuple[float, float]:
    """The 95 % interval of a geometric mean of ratios, clips drawn again with replacement.

    Args:
        log_ratios: (num_clips,), natural logarithms.
    """
    drawn = np.random.default_rng(0).integers(len(log_ratios), size=(RESAMPLES, len(log_ratios)))
    low, high = np.percentile(log_ratios[drawn].mean(axis=1), [2.5, 97.5])
    return float(np.exp(low)), float(np.exp(high))


def header(title: str, names: Sequence[str], weights: Sequence[str]) -> str:
    """The first line of a table whose columns are figures by name, then ratios."""
    ratios = [*weights, "mean"] if len(weights) > 1 else weights
    return row(title, [*names, *(f"{name}/{UNTRAINED}" for name in ratios)])


def mean_line(title: str, figures: Mapping[str, Floats], weights: Sequence[str]) -> str:
    """A line of such a table: geometric means over the clips that are given."""
    logs = log_ratios(figures, weights).mean(axis=1)
    if len(weights) > 1:
        logs = np.append(logs, logs.mean())
    values = [*(geometric_mean(list(of_clips)) for of_clips in figures.values()), *np.exp(logs)]
    return row(title, [f"{value:.3f}" for value in values])


def interval_lines(title: str, logs: Floats, weights: Sequence[str]) -> list[str]:
    """Lines with each training's ratio and its interval, the last of them for their mean.

    Args:
        title: what was measured.
        logs: (num_weights, num_clips), see `log_ratios`.
        weights: their names.
    """
    named = dict(zip(weights, logs, strict=True))
    if len(weights) > 1:
        named[f"mean of {len(weights)}"] = logs.mean(axis=0)
    lines = []
    for name, of_clips in named.items():
        low, high = bootstrap_interval(of_clips)
        verdict = "includes 1" if low <= 1 <= high else "excludes 1"
        ratio = f"{np.exp(of_clips.mean()):.3f} [{low:.3f}, {high:.3f}]"
        lines.append(row(f"{title}, {name}", [ratio, verdict]))
    return lines


def row(title: str, cells: Sequence[str]) -> str:
    """A line of a table: a wide title and columns as wide as their names need."""
    return f"{title:{_TITLE}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells)


def _use_one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
