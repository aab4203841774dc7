"""Where one scene of a video ends and the next begins."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image

# A cut leaves more unexplained than this share of the frame's contrast, and than this many times
# what its neighbors leave, so many to either side; and at least so many gray levels.
_CONTRAST_SHARE = 0.35
_NEIGHBOR_FACTOR = 2.0
_NEIGHBORS = 2
_LEVELS = 8.0


def unexplained(previous: Image, frame: Image, flow: NDArray[np.float32]) -> tuple[float, float]:
    """How far the flow fails to explain a frame, and the frame's contrast.

    The previous frame carried by the flow leaves an error of a few gray levels within a scene,
    also in fast motion; across a cut it is of the order of the contrast. A change of brightness
    alone leaves none.

    Args:
        previous: (height, width, 3) uint8 RGB.
        frame: the same shape.
        flow: (height, width, 2), (dx, dy) px from frame to previous.

    Returns:
        Two mean absolute deviations, gray levels.
    """
    before, gray = (
        np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)
        for image in (previous, frame)
    )
    carried = cv2.remap(
        before,
        flow,
        None,  # type: ignore[call-overload]  # the flow holds both coordinates
        cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _mean_deviation(gray - carried), _mean_deviation(gray)


def find_cuts(errors: NDArray[np.float64], contrasts: NDArray[np.float64]) -> list[int]:
    """The first frame of every scene after the first.

    Args:
        errors: (num_frames,), see `unexplained`; anything for the first frame.
        contrasts: (num_frames,).
    """
    cuts: list[int] = []
    for number in range(1, len(errors)):
        start = max(1, number - _NEIGHBORS)
        around = np.delete(errors[start : number + _NEIGHBORS + 1], number - start)
        usual = float(around.max(initial=0.0))
        if len(around) and errors[number] > max(
            _LEVELS, _CONTRAST_SHARE * contrasts[number], _NEIGHBOR_FACTOR * usual
        ):
            cuts.append(number)
    return cuts


def _mean_deviation(values: NDArray[np.float32]) -> float:
    return float(np.abs(values - values.mean()).mean())
