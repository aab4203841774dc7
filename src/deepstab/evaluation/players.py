"""Before and after in one video, side by side, small enough to lie in a page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.stabilize.whole_video import warp_frame
from deepstab.video.frames import probe, read_frames
from deepstab.video.writer import write_video

MAX_FRAMES = 300
"""Longer videos are cut to their beginning."""

_MAX_SIDE_PX = 480
_CRF, _PRESET = 28, "medium"

Image = NDArray[np.uint8]


def write_player(unstable: Path, thetas: NDArray[np.float64], destination: Path) -> None:
    """Write the input, left, and the input as corrected, right, as one H.264 video.

    Both are shown as a player would turn them, at most 480 px wide and high each; the same input
    gives the same bytes.

    Args:
        unstable: the input video.
        thetas: (num_frames, 2, 3), its correction.
        destination: the .mp4 to appear.

    Raises:
        VideoError: a video cannot be read or written.
    """
    info = probe(unstable)
    turns = round(info.rotation_deg / 90) % 4

    def side_by_side() -> Iterator[Image]:
        pairs = zip(read_frames(unstable), thetas, strict=False)
        for frame, theta in islice(pairs, MAX_FRAMES):
            sides = (frame, warp_frame(frame, theta))
            yield np.hstack([_shrink(np.rot90(side, turns)) for side in sides])

    destination.parent.mkdir(parents=True, exist_ok=True)
    write_video(destination, side_by_side(), frame_rate=info.frame_rate, crf=_CRF, preset=_PRESET)


def _shrink(frame: Image) -> Image:
    height, width = frame.shape[:2]
    scale = min(1.0, _MAX_SIDE_PX / max(height, width))
    size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
