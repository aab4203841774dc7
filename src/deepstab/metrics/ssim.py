"""Cropped SSIM; apart from the other measures, which do without scikit-image."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from deepstab.metrics.image import AnyImage, checked_range

# structural_similarity's default sliding window, px.
_WINDOW_PX = 7


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

    Source: Wang et al. 2004, as implemented by scikit-image with its default constants.
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
    return float(
        structural_similarity(
            image[center],
            reference[center],
            data_range=peak,
            channel_axis=2 if image.ndim == 3 else None,
        )
    )
