"""How the camera of a whole video moved, streaming."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image
from deepstab.models.network import SeeMotion
from deepstab.stabilization.scenes import find_cuts, unexplained

# Frames estimated at once.
_FRAMES_AT_ONCE = 64


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
            `deepstab.data.flow.with_flow`.
        see_motion: a network's.
        aspect: width / height.
        context_frames: so many frames to either side have a say on a frame.
    """
    motions: list[NDArray[np.float32]] = []
    wobbles: list[NDArray[np.float32]] = []
    errors: list[tuple[float, float]] = []
    rgb: list[Image] = []
    flow: list[NDArray[np.float32]] = []

    def run(keep: slice) -> None:
        motion, wobble = see_motion(np.stack(rgb), np.stack(flow), aspect)
        motions.append(motion[keep])
        wobbles.append(wobble[keep])

    done = 0
    for frame, field in frames:
        errors.append(unexplained(rgb[-1], frame, field) if rgb else (0.0, 0.0))
        rgb.append(frame)
        flow.append(field)
        if len(rgb) == _FRAMES_AT_ONCE:
            last = _FRAMES_AT_ONCE - context_frames
            run(slice(done, last))
            rgb, flow = rgb[last - context_frames :], flow[last - context_frames :]
            done = context_frames
    if len(rgb) > done:
        run(slice(done, None))
    motion, wobble = (np.concatenate(parts).astype(np.float64) for parts in (motions, wobbles))
    return VideoMotion(motion, wobble, find_cuts(*np.array(errors).T), aspect)
