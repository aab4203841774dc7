"""What the page does with one video, in a process that can be killed."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepstab import api
from deepstab.metrics.stability import StabilityScore
from deepstab.video.confined import Confinement, say
from deepstab.video.frames import probe
from deepstab.video.limits import Limits

# Often enough to look alive.
_SAY_EVERY_S = 0.2
_NAME_LENGTH = 80


class Settings(NamedTuple):
    """What a visitor chooses; see `deepstab.stabilize`."""

    crop: str
    strength: float


class Step(NamedTuple):
    """How far a job is: phase, frames done in it, and how many there will be, if known."""

    phase: str
    done: int
    total: int | None


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a video.

    Attributes:
        path: of the result.
        kept: part of width and height that is shown, in (0, 1].
        score: of before and after.
        paths: the camera's before and after, (num_frames, 4) each, see `Stabilization`.
    """

    path: Path
    kept: float
    score: StabilityScore
    paths: tuple[NDArray[np.float64], NDArray[np.float64]]


def process(
    source: Path, destination: Path, settings: Settings, limits: Limits, confinement: Confinement
) -> Generator[Step | None, None, Result]:
    """Stabilize and score a stranger's video in a process of its own; closed, it is killed.

    Args:
        source: the video.
        destination: to write, .mp4.
        settings: the visitor's.
        limits: of the video.
        confinement: of the process.

    Yields:
        How far it is, and None several times a second.

    Raises:
        DeepStabError: with what is wrong and what to do, in one line. No file is left then.
    """
    return confinement.steps(_stabilize_and_score, source, destination, settings, limits)


def result_name(upload: str) -> str:
    """The name of the result of an uploaded file, with nothing in it that means something."""
    stem = re.sub(r"[^\w-]+", "_", Path(upload).stem).strip("_")[:_NAME_LENGTH]
    return f"{stem or 'video'}-steady.mp4"


def _stabilize_and_score(
    source: Path, destination: Path, settings: Settings, limits: Limits
) -> Result:
    probe(source, limits=limits)
    last_s = 0.0

    def tell(phase: str, done: int, total: int | None) -> None:
        nonlocal last_s
        if done == 1 or time.monotonic() - last_s > _SAY_EVERY_S:
            last_s = time.monotonic()
            say(Step(phase, done, total))

    say(Step("load", 0, None))
    done = api.stabilize(source, destination, **settings._asdict(), progress=tell)
    score = api.score(source, destination, progress=tell)
    return Result(destination, done.zoom, score, (done.input_path, done.output_path))
