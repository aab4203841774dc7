"""Where one scene of a video ends and the next begins."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# A cut leaves an error above all of these: gray levels, share of the frame's mean absolute
# contrast, and multiple of the largest error of the frames before, which fades by a tenth each.
_CUT_LEVELS = 8.0
_CUT_CONTRAST = 0.35
_CUT_JUMP = 2.0


class CutFinder:
    """Tells where a new scene begins: where the flow does not explain the frame.

    The previous frame carried by the flow leaves an error of a few levels within a scene, also in
    fast motion; across a cut it is of the order of the frame's own contrast.
    """

    def __init__(self) -> None:
        self._previous: NDArray[np.float32] | None = None
        self._usual_error: float | None = None

    def begins_scene(self, frame: Image, flow: NDArray[np.float32]) -> bool:
        """Take the next frame.

        Args:
            frame: (height, width, 3) uint8 RGB, at flow size.
            flow: (height, width, 2), to the previous frame.
        """
        gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32)
        previous, self._previous = self._previous, gray
        if previous is None:
            return False
        ys, xs = np.mgrid[0 : gray.shape[0], 0 : gray.shape[1]].astype(np.float32)
        carried = cv2.remap(
            previous,
            xs + flow[..., 0],
            ys + flow[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        error = float(np.abs(carried - gray).mean())
        contrast = float(np.abs(gray - gray.mean()).mean())
        usual, self._usual_error = self._usual_error, error
        if usual is None:
            return False
        if error > max(_CUT_LEVELS, _CUT_CONTRAST * contrast, _CUT_JUMP * usual):
            return True
        self._usual_error = max(0.9 * usual, error)
        return False
