"""Image quality: PSNR, inter-frame PSNR and black borders (pure, in float)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image

AnyImage: TypeAlias = Image | NDArray[np.floating]
"""(H, W) or (H, W, channels); uint8 in [0, 255] or float, in [0, 1] unless a range is given."""

# Rounding to 8 bit alone leaves a mean squared error of 1/12 of a level.
_ROUNDING_PSNR_DB = 10 * math.log10(255**2 * 12)
# A bicubic kernel overshoots a little; values far outside mean another range.
_RANGE_SLACK = 0.25


def psnr(image: AnyImage, reference: AnyImage, *, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio, computed in float64 so that uint8 cannot wrap around.

    Args:
        image: (H, W) or (H, W, channels), uint8 or float.
        reference: same shape and kind.
        data_range: value of white; by default 255 for uint8 and 1 for float.

    Returns:
        `10 log10(data_range^2 / MSE)` in dB, `inf` for identical images.

    Raises:
        ValueError: shapes or kinds differ, or values lie far outside the data range.
    """
    peak = checked_range(image, reference, data_range)
    difference = np.subtract(image, reference, dtype=np.float64)
    error = float(np.mean(np.square(difference, out=difference)))
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf


def interframe_psnr(frames: Iterable[Image]) -> float:
    """Mean PSNR between consecutive frames (the field's inter-frame transformation fidelity).

    Two frames are held at a time. Repeated frames count as 58.9 dB, the PSNR of rounding to
    8 bit, because one infinite value would erase all others.

    Args:
        frames: (H, W, 3) uint8, all of one size.

    Returns:
        Mean over the pairs, dB.

    Raises:
        ValueError: fewer than two frames, or frames that differ in shape.
    """
    values = [min(psnr(after, before), _ROUNDING_PSNR_DB) for before, after in pairwise(frames)]
    if not values:
        raise ValueError("inter-frame PSNR needs at least 2 frames")
    return math.fsum(values) / len(values)


def black_pixel_fraction(frame: Image, *, threshold: int = 4) -> float:
    """Fraction of the frame that is black border: dark pixels connected to the frame's edge.

    Dark objects inside the picture do not count, only areas that reach the edge. A night sky or
    a letterbox does reach it: compare with the value of the unstabilized frame.

    Args:
        frame: (H, W, 3) uint8.
        threshold: largest value a channel of a black pixel may have; above 0 because encoders
            do not keep an exact black, well below the dark noise of a camera.

    Returns:
        Black border pixels over all pixels, in [0, 1]; neighbors are 4-connected.

    Raises:
        ValueError: the frame is not (H, W, 3) uint8.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
    black = (red <= threshold) & (green <= threshold) & (blue <= threshold)
    if not (black[0].any() or black[-1].any() or black[:, 0].any() or black[:, -1].any()):
        return 0.0
    num_areas, areas = cv2.connectedComponents(black.astype(np.uint8), connectivity=4)
    touching = np.zeros(num_areas, dtype=bool)
    for edge in (areas[0], areas[-1], areas[:, 0], areas[:, -1]):
        touching[edge] = True
    touching[0] = False
    return float(np.mean(touching[areas]))


def checked_range(image: AnyImage, reference: AnyImage, data_range: float | None) -> float:
    """The value of white in two images that can be compared.

    Raises:
        ValueError: shapes or kinds differ, or values lie far outside the data range.
    """
    if image.shape != reference.shape:
        raise ValueError(f"images differ in shape: {image.shape} and {reference.shape}")
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"image must be (H, W) or (H, W, channels), got {image.shape}")
    if image.dtype == np.uint8 and reference.dtype == np.uint8:
        return 255.0 if data_range is None else data_range
    if not all(np.issubdtype(array.dtype, np.floating) for array in (image, reference)):
        raise ValueError(
            f"images must both be uint8 or both float, got {image.dtype} and {reference.dtype}"
        )
    peak = 1.0 if data_range is None else data_range
    low = float(min(image.min(), reference.min()))
    high = float(max(image.max(), reference.max()))
    if not (-_RANGE_SLACK * peak <= low and high <= (1 + _RANGE_SLACK) * peak):
        raise ValueError(
            f"values from {low:g} to {high:g} do not fit data_range {peak:g}; pass the right one"
        )
    return peak
