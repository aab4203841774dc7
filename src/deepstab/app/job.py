"""What the page does with one video, in a process that can be killed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepstab import api
from deepstab.metrics.stability import StabilityScore
from deepstab.video.color import Planes
from deepstab.video.confined import Confinement, say
from deepstab.video.frames import VideoInfo, probe
from deepstab.video.limits import Limits
from deepstab.video.reader import VideoReader
from deepstab.video.rewrite import rewrite_planes

# Often enough to look alive.
_SAY_EVERY_S = 0.2
_NAME_LENGTH = 80
# What every browser plays: suffixes, codecs as libav names them, and pixel formats.
_PLAYABLE = ({".mp4", ".m4v", ".webm"}, {"h264", "vp8", "vp9", "av1"}, {"yuv420p", "yuvj420p"})
_SHOWN_CRF, _SHOWN_PRESET = 23, "ultrafast"


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
class Made:
    """The steady video, which is there before its scores are.

    Attributes:
        path: of the steady video.
        before: the video as it came, or a copy that browsers play.
        kept: part of width and height that is shown, in (0, 1].
        duration_s: s.
        paths: the camera's before and after, (num_frames, 4) each, see `Stabilization`.
        notes: what could not be kept, a line each.
    """

    path: Path
    before: Path
    kept: float
    duration_s: float
    paths: tuple[NDArray[np.float64], NDArray[np.float64]]
    notes: tuple[str, ...]


def process(
    source: Path, destination: Path, settings: Settings, limits: Limits, confinement: Confinement
) -> Generator[Step | Made | None, None, StabilityScore]:
    """Stabilize and score a stranger's video in a process of its own; closed, it is killed.

    Args:
        source: the video.
        destination: to write, .mp4.
        settings: the visitor's.
        limits: of the video.
        confinement: of the process.

    Yields:
        How far it is, what was made as soon as it is whole, and None several times a second.

    Returns:
        The scores of what was made.

    Raises:
        DeepStabError: with what is wrong and what to do, in one line. No half-written file is left.
    """
    return confinement.steps(_stabilize_and_score, source, destination, settings, limits)


def result_name(upload: str) -> str:
    """The name of the result of an uploaded file, with nothing in it that means something."""
    stem = re.sub(r"[^\w-]+", "_", Path(upload).stem).strip("_")[:_NAME_LENGTH]
    return f"{stem or 'video'}-steady.mp4"


def _stabilize_and_score(
    source: Path, destination: Path, settings: Settings, limits: Limits
) -> StabilityScore:
    say(Step("load", 0, None))
    info = probe(source, limits=limits)
    notes = _Notes()
    logging.getLogger("deepstab").addHandler(notes)
    tell = _teller(source, info, limits)
    done = api.stabilize(source, destination, **settings._asdict(), progress=tell)
    duration_s = done.num_frames / float(info.frame_rate)
    paths = (done.input_path, done.output_path)
    lines = tuple(dict.fromkeys(notes.lines))
    before = _playable(source, destination.with_name("before.mp4"), tell, done.num_frames)
    say(Made(destination, before, done.zoom, duration_s, paths, lines))
    return api.score(source, destination, progress=tell)


def _teller(source: Path, info: VideoInfo, limits: Limits) -> api.OnProgress:
    """What says how far the work is, now and then, and looks for more than a header told."""
    last_s = 0.0

    def tell(phase: str, done: int, total: int | None) -> None:
        nonlocal last_s
        limits.check_duration(f"video {source}", done / float(info.frame_rate))
        if done == 1 or time.monotonic() - last_s > _SAY_EVERY_S:
            last_s = time.monotonic()
            say(Step(phase, done, total))

    return tell


def _playable(
    source: Path, copy: Path, tell: Callable[[str, int, int | None], None], num_frames: int
) -> Path:
    """The source itself where browsers play it, else a copy that they do."""
    with VideoReader(source) as reader:
        codec = reader.stream.codec_context
        kind = (source.suffix.lower(), codec.codec.canonical_name, codec.pix_fmt)
    if all(part in known for part, known in zip(kind, _PLAYABLE, strict=True)):
        return source

    def counted(frames: Iterator[Planes]) -> Iterator[Planes]:
        for done, frame in enumerate(frames, 1):
            yield frame
            tell("convert", done, num_frames)

    rewrite_planes(source, copy, counted, crf=_SHOWN_CRF, preset=_SHOWN_PRESET)
    return copy


class _Notes(logging.Handler):
    """Keeps what the package warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(" ".join(record.getMessage().split()))
