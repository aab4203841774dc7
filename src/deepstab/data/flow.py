"""Decoding to network size and Farneback optical flow.

Convention: the flow of frame t lives on the grid of frame t and points to where each pixel was in
frame t - 1: (dx, dy) in px of the resized frame. The flow of the first frame is zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.config import FlowParams
from deepstab.image import Image


def with_flow(
    frames: Iterable[Image], params: FlowParams
) -> Iterator[tuple[Image, NDArray[np.float32]]]:
    """Each frame, as it came, beside its flow.

    Args:
        frames: (height, width, 3) uint8 RGB.
        params: the flow section.

    Yields:
        The frame, and its flow to the previous one, see `farneback`.
    """
    frames, for_flow = tee(frames)
    return zip(frames, farneback(for_flow, params), strict=True)


def farneback(frames: Iterable[Image], params: FlowParams) -> Iterator[NDArray[np.float32]]:
    """Flow of each frame to its predecessor.

    Args:
        frames: (height, width, 3) uint8 RGB.
        params: the flow section.

    Yields:
        (height, width, 2) float32, (dx, dy) in px.

    Source: G. Farneback, Two-frame motion estimation based on polynomial expansion, SCIA 2003, as
        in cv2.calcOpticalFlowFarneback.
    """
    flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN if params.gaussian else 0
    previous: Image | None = None
    for frame in frames:
        gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        if previous is None:
            yield np.zeros((*gray.shape, 2), np.float32)
        else:
            yield cv2.calcOpticalFlowFarneback(
                gray,
                previous,
                None,  # type: ignore[call-overload]  # no initial flow; the stub wants an array
                pyr_scale=params.pyr_scale,
                levels=params.levels,
                winsize=params.winsize,
                iterations=params.iterations,
                poly_n=params.poly_n,
                poly_sigma=params.poly_sigma,
                flags=flags,
            )
        previous = gray
