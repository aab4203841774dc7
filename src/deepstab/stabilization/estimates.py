"""How the camera of a whole video moved, streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image
from deepstab.models.network import FRAMES_AT_ONCE, SeeMotion
from deepstab.stabilization.scenes import find_cuts, unexplained
from deepstab.video.ahead import in_thread

# The network's graph is compiled when it gets the first; decoding and flow go on meanwhile.
_WINDOWS_AHEAD = 6


@dataclass(frozen=True, eq=False)
class VideoMotion:
    """How the camera of a video moved.

    Attributes:
        motion: (num_frames, 4), see `deepstab.trajectory`.
        wobble: (num_frames, 6, 2), see `deepstab.models.wobble`.
        cuts: first frames of the scenes after the first, ascending.
        aspect: width / height of the frames.
    """

    motion: NDArray[np.float64]
    wobble: NDArray[np.float64]
    cuts: list[int]
    aspect: float


def estimate_motion(
    frames: Iterable[tuple[Image, NDArray[np.float32]]],
    see_motion: SeeMotion,
    *,
    aspect: float,
    context_frames: int,
) -> VideoMotion:
    """The camera's motion and wobble over a whole video, streaming, and where its scenes begin.

    Args:
        frames: (height, width, 3) uint8 RGB of the network's size, each with its flow, see
            `deepstab.data.flow.with_flow`; taken while a thread runs the network.
        see_motion: a network's.
        aspect: width / height.
        context_frames: so many frames to either side have a say on a frame.
    """
    errors: list[tuple[float, float]] = []

    def see(window: _Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        motion, wobble = see_motion(window.rgb, window.flow, aspect)
        return motion[window.kept], wobble[window.kept]

    windows = _windows(_with_errors(frames, errors), context_frames)
    with closing(in_thread(see, windows, name="deepstab-see", most_waiting=_WINDOWS_AHEAD)) as seen:
        motions, wobbles = zip(*seen, strict=True)
    motion, wobble = (np.concatenate(parts).astype(np.float64) for parts in (motions, wobbles))
    return VideoMotion(motion, wobble, find_cuts(*np.array(errors).T), aspect)


@dataclass(frozen=True, eq=False)
class _Window:
    """Successive frames, their flow, and which of them are far enough from both ends."""

    rgb: Image
    flow: NDArray[np.float32]
    kept: slice


def _windows(
    frames: Iterable[tuple[Image, NDArray[np.float32]]], context_frames: int
) -> Iterator[_Window]:
    """Windows of one length that keep every frame once, with its context but at the video's ends.

    The last reaches back as far as it must; a video that is shorter is one window.
    """
    held: list[tuple[Image, NDArray[np.float32]]] = []
    told = 0  # of those held
    for frame in frames:
        held.append(frame)
        if len(held) - told == FRAMES_AT_ONCE - min(told, context_frames):
            first, told = told, FRAMES_AT_ONCE - context_frames
            first -= len(held) - FRAMES_AT_ONCE
            held = held[-FRAMES_AT_ONCE:]
            yield _window(held, slice(first, told))
    if len(held) > told:
        told -= max(len(held) - FRAMES_AT_ONCE, 0)
        yield _window(held[-FRAMES_AT_ONCE:], slice(told, None))


def _window(held: list[tuple[Image, NDArray[np.float32]]], kept: slice) -> _Window:
    rgb, flow = zip(*held, strict=True)
    return _Window(np.stack(rgb), np.stack(flow), kept)


def _with_errors(
    frames: Iterable[tuple[Image, NDArray[np.float32]]], errors: list[tuple[float, float]]
) -> Iterator[tuple[Image, NDArray[np.float32]]]:
    """The same frames; `errors` gets what the flow of each leaves unexplained."""
    previous: Image | None = None
    for frame, flow in frames:
        errors.append((0.0, 0.0) if previous is None else unexplained(previous, frame, flow))
        yield frame, flow
        previous = frame
