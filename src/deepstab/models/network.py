"""What stabilizing a video needs of a generator, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepstab.config import NetworkParams
from deepstab.image import Image
from deepstab.models.origin import Origin

FRAMES_AT_ONCE = 64
"""So many frames of a video are given to a network together, if it has as many."""

Floats32: TypeAlias = NDArray[np.float32]

SeeMotion: TypeAlias = Callable[[Image, Floats32, float], tuple[Floats32, Floats32]]
"""Frames (time, height, width, 3) uint8 RGB, their flow (time, height, width, 2), px to the
previous frame, and the aspect, to the camera's motion (time, 4), see `deepstab.trajectory`, and
wobble (time, 6, 2), see `deepstab.models.wobble`."""


@dataclass(frozen=True)
class MotionNetwork:
    """A generator with the motion head, ready to run.

    Attributes:
        params: of the network and of its flow.
        origin: which weights it has.
        see_motion: what it says of consecutive frames.
    """

    params: NetworkParams
    origin: Origin
    see_motion: SeeMotion
