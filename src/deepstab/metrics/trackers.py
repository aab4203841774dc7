"""Two trackers that follow the points of a video over three frames in a row.

Convention: the tracks around a frame are (num, 3, 2), the positions (x, y) of each point in the
frame before, the frame itself and the frame after, as shares of the frame's width and height, with
the origin at the center of the frame, x right and y down.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image

Points: TypeAlias = NDArray[np.float32]
"""(num, 2) positions (x, y), px, pixel centers at whole numbers."""

Flow: TypeAlias = NDArray[np.float32]
"""(height, width, 2), (dx, dy) px."""

Tracks: TypeAlias = NDArray[np.float64]
"""(num, 3, 2), see above."""

# Lucas-Kanade: corners, and how they are followed.
_MAX_CORNERS = 200
_CORNER_QUALITY = 0.01
_CORNER_DISTANCE_PX = 12
_LK_WINDOW = (21, 21)
_LK_TOP_LEVEL = 3
_LK_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 0.01)
_LK_RETURN_PX = 0.4
# Dense flow: its size, the grid of points it is read at, and which of them can be trusted.
_DIS_WIDTH = 320
_DIS_GRID = (20, 12)
_DIS_RETURN_PX = 0.2
_DIS_MARGIN_PX = 2
_TEXTURE_BLOCK = 7
_LEAST_TEXTURE = 2e-4


def resized(gray: Image, width: int) -> Image:
    """Resize a gray frame to a width, px, keeping its shape; by area when shrinking."""
    size = (width, max(1, round(width * gray.shape[0] / gray.shape[1])))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


class LucasKanade:
    """Takes gray frames one by one and follows the corners of the one before."""

    def __init__(self) -> None:
        self._frames: deque[Image] = deque(maxlen=3)

    def follow(self, gray: Image) -> Tracks | None:
        """Tracks around the frame before this one; None for the first two frames."""
        self._frames.append(gray)
        if len(self._frames) < 3:
            return None
        before, middle, after = self._frames
        corners = cv2.goodFeaturesToTrack(
            middle, _MAX_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX
        )
        if corners is None:
            return np.zeros((0, 3, 2))
        start = np.asarray(corners, np.float32).reshape(-1, 2)
        back, came_back = _there_and_back(middle, before, start)
        forth, came_forth = _there_and_back(middle, after, start)
        tracks = np.stack([back, start, forth], axis=1)[came_back & came_forth]
        return _about_center(tracks, gray)


class DenseInverseSearch:
    """Takes gray frames one by one and carries a grid of points of the one before by dense flow."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._frames: deque[Image] = deque(maxlen=2)
        # Flow from the first of two frames to the second, and back.
        self._flows: deque[tuple[Flow, Flow]] = deque(maxlen=2)

    def follow(self, gray: Image) -> Tracks | None:
        """Tracks around the frame before this one; None for the first two frames."""
        self._frames.append(resized(gray, _DIS_WIDTH))
        if len(self._frames) < 2:
            return None
        middle, after = self._frames
        self._flows.append((self._flow(middle, after), self._flow(after, middle)))
        if len(self._flows) < 2:
            return None
        (from_before, to_before), (to_after, from_after) = self._flows
        start = _grid(middle)
        back, came_back = _carried_and_back(to_before, from_before, start)
        forth, came_forth = _carried_and_back(to_after, from_after, start)
        texture = _sample(np.asarray(cv2.cornerMinEigenVal(middle, _TEXTURE_BLOCK)), start)
        kept = came_back & came_forth & (texture > _LEAST_TEXTURE)
        return _about_center(np.stack([back, start, forth], axis=1)[kept], middle)

    def _flow(self, source: Image, target: Image) -> Flow:
        # OpenCV takes "no first guess" as a missing array, which its type hints leave out.
        flow = self._dis.calc(source, target, None)  # type: ignore[call-overload]
        return np.asarray(flow, np.float32)


def _there_and_back(
    source: Image, target: Image, start: Points
) -> tuple[Points, NDArray[np.bool_]]:
    # Where points of the source are in the target, and which of them return to the start.
    end, found_there = _follow(source, target, start)
    back, found_back = _follow(target, source, end)
    near = np.linalg.norm(back - start, axis=1) < _LK_RETURN_PX
    return end, found_there & found_back & near


def _follow(source: Image, target: Image, start: Points) -> tuple[Points, NDArray[np.bool_]]:
    end, status, _ = cv2.calcOpticalFlowPyrLK(
        source,
        target,
        start,
        np.empty_like(start),
        winSize=_LK_WINDOW,
        maxLevel=_LK_TOP_LEVEL,
        criteria=_LK_CRITERIA,
    )
    return np.asarray(end, np.float32), status.ravel() > 0


def _carried_and_back(there: Flow, back: Flow, start: Points) -> tuple[Points, NDArray[np.bool_]]:
    # Where the flow carries points, and which of them stay inside and return.
    end = start + _sample(there, start)
    missed = np.linalg.norm(end + _sample(back, end) - start, axis=1)
    far_side = np.array(there.shape[1::-1]) - 1 - _DIS_MARGIN_PX
    inside = ((end > _DIS_MARGIN_PX) & (end < far_side)).all(axis=1)
    return end, inside & (missed < _DIS_RETURN_PX)


def _sample(field: NDArray[np.float32], points: Points) -> NDArray[np.float32]:
    # Of (height, width, ...) the values at points, (num, ...).
    x, y = points[:, :1], points[:, 1:]
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR), np.float32)[:, 0]


def _grid(image: Image) -> Points:
    # Centers of the cells, px of the image.
    axes = ((np.arange(num) + 0.5) / num for num in _DIS_GRID)
    x, y = np.meshgrid(*axes)
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    return (grid * image.shape[1::-1] - 0.5).astype(np.float32)


def _about_center(points: Points, image: Image) -> Tracks:
    # Pixel positions as shares of the frame's width and height, from its center.
    size = np.array(image.shape[1::-1])
    return (points - (size - 1) / 2) / size
