"""Corrections applied at the zoom that hides their borders, as the common recipe does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image


def smallest_zoom(
    corrections: NDArray[np.float64], *, width: int, height: int, max_zoom: float
) -> float:
    """The static zoom about the center that leaves no black border in any frame.

    Args:
        corrections: (num_frames, 2, 3), output -> input, pixels.
        width, height: frame size, px.
        max_zoom: largest zoom allowed; black borders may remain where it binds.

    Returns:
        Zoom in [1, max_zoom], for `warp_frames`.

    Raises:
        ValueError: max_zoom is below 1.
    """
    if not max_zoom >= 1:
        raise ValueError(f"max_zoom must be at least 1, got {max_zoom}")
    half = np.array([width - 1, height - 1]) / 2
    centers = corrections[:, :, :2] @ half + corrections[:, :, 2] - half
    corners = half * [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    # Input position of an output corner at zoom z: center + reach / z, to stay within +-half.
    reach = np.einsum("tij,cj->tci", corrections[:, :, :2], corners)
    room = half - np.sign(reach) * centers[:, None]
    if np.any((room <= 0) & (np.abs(reach) > 0)):
        return max_zoom
    needed = np.max(np.abs(reach) / np.where(room > 0, room, 1.0), initial=1.0)
    return float(np.clip(needed, 1.0, max_zoom))


def warp_frames(
    frames: Iterable[Image], corrections: NDArray[np.float64], *, zoom: float
) -> Iterator[Image]:
    """Apply corrections to frames of the same size, one at a time; what lies outside is black.

    Args:
        frames: (H, W, 3) uint8.
        corrections: (num_frames, 2, 3), output -> input, pixels.
        zoom: static magnification about the center of the output.

    Yields:
        (H, W, 3) uint8, bilinear.

    Raises:
        ValueError: there are more or fewer frames than corrections, or zoom is not positive.
    """
    if not zoom > 0:
        raise ValueError(f"zoom must be positive, got {zoom}")
    for frame, correction in zip(frames, corrections, strict=True):
        height, width = frame.shape[:2]
        center = np.array([width - 1, height - 1]) / 2
        linear = correction[:, :2] / zoom
        shift = correction[:, :2] @ center + correction[:, 2] - linear @ center
        warped = cv2.warpAffine(
            frame,
            np.column_stack([linear, shift]),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(0, 0, 0),
        )
        yield np.asarray(warped, dtype=np.uint8)
