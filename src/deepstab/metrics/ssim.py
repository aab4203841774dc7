"""Cropped SSIM."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.metrics.image import AnyImage, checked_range

# Of the sliding window, and of the constants that keep the ratio of two small numbers quiet.
_WINDOW_PX = 7
_K1, _K2 = 0.01, 0.03


def cropped_ssim(
    image: AnyImage, reference: AnyImage, *, border: float, data_range: float | None = None
) -> float:
    """Structural similarity of the center, after cutting the border that a warp leaves empty.

    Args:
        image: (H, W) or (H, W, channels), uint8 or float.
        reference: same shape and kind.
        border: fraction of the height (width) cut from the top and the bottom (left and right),
            rounded to whole pixels.
        data_range: value of white; by default 255 for uint8 and 1 for float.

    Returns:
        Mean SSIM over the center, uniform 7x7 px window, mean of the channels; 1 for identical.

    Raises:
        ValueError: shapes or kinds differ, values lie far outside the data range, the border is
            not in [0, 0.5), or fewer than 7 px remain.

    Source: Z. Wang et al., Image quality assessment: from error visibility to structural
        similarity, 2004, with the sample covariance as in scikit-image, in half its time.
    """
    peak = checked_range(image, reference, data_range)
    if not 0 <= border < 0.5:
        raise ValueError(f"border must be at least 0 and below 0.5, got {border}")
    height, width = image.shape[:2]
    cut_y, cut_x = round(height * border), round(width * border)
    if min(height - 2 * cut_y, width - 2 * cut_x) < _WINDOW_PX:
        raise ValueError(
            f"border {border} leaves less than {_WINDOW_PX} px of a {width}x{height} image; "
            "cut less or use larger images"
        )
    center = np.s_[cut_y : height - cut_y, cut_x : width - cut_x]
    return _ssim(image[center].astype(np.float64), reference[center].astype(np.float64), peak)


def _ssim(image: NDArray[np.float64], reference: NDArray[np.float64], peak: float) -> float:
    to_sample = _WINDOW_PX**2 / (_WINDOW_PX**2 - 1)
    mean, wanted = _means(image), _means(reference)
    product = mean * wanted
    squares = mean * mean + wanted * wanted
    covariance = to_sample * (_means(image * reference) - product)
    variances = to_sample * (_means(image * image + reference * reference) - squares)
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return float(similarity.mean())


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of the windows that lie within."""
    edge = _WINDOW_PX // 2
    means = cv2.blur(values, (_WINDOW_PX, _WINDOW_PX))
    return np.asarray(means[edge:-edge, edge:-edge], np.float64)
