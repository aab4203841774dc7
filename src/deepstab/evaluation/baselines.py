"""The classical baseline: tracked corners, their path smoothed by a Gaussian.

Convention: corrections are (2, 3) matrices in pixels of the frame, output -> input, (x, y) order,
pixel centers at whole numbers, as `cv2.warpAffine` takes them with `cv2.WARP_INVERSE_MAP`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import REFERENCE_WIDTH_PX, Image
from deepstab.pixels import similarity_about_center

GAUSSIAN_SIGMA_FRAMES = 15.0
"""Of the common recipe: half a second at 30 frames/s."""

_MAX_CORNERS = 400
_CORNER_QUALITY = 0.01
_CORNER_DISTANCE_PX = 12
_MIN_CORNERS = 10
_TRACKING_WINDOW = (21, 21)
_PYRAMID_LEVELS = 4
_RANSAC_THRESHOLD_PX = 3.0
# The Gaussian is cut at this many sigma.
_KERNEL_REACH = 4


def gaussian_path_corrections(
    frames: Iterable[Image], *, sigma_frames: float
) -> NDArray[np.float64]:
    """Stabilize by the classical recipe: track corners, low-pass the camera path, undo the rest.

    Corners are tracked from frame to frame by pyramidal Lucas-Kanade, a robust similarity is
    fitted, and its translation, rotation and log-scale are summed up to the camera path. Every
    correction carries the path to its Gaussian average; at both ends the path is continued by
    point reflection, so that a steady pan is left alone. Frames whose motion cannot be measured
    count as still. Two frames are held at a time.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size.
        sigma_frames: standard deviation of the Gaussian, frames.

    Returns:
        (num_frames, 2, 3) corrections, output -> input, pixels.

    Raises:
        ValueError: sigma is not positive, there is no frame, or the frames differ in size.

    Source: goodFeaturesToTrack (Shi and Tomasi 1994), calcOpticalFlowPyrLK (Bouguet 2000) and
    estimateAffinePartial2D (RANSAC) of OpenCV; the path as in the common OpenCV tutorials.
    """
    if not (math.isfinite(sigma_frames) and sigma_frames > 0):
        raise ValueError(f"sigma_frames must be positive and finite, got {sigma_frames}")
    grays = _Grays(frames)
    steps = [_track_similarity(previous, current) for previous, current in pairwise(grays)]
    if not grays.num_frames:
        raise ValueError("no frames to stabilize")
    path = np.cumsum([(0.0, 0.0, 0.0, 0.0), *steps], axis=0)
    shake = path - _smooth(path, sigma_frames)
    # What moved the steady output's content to the input; its shift is in widths.
    shake[:, :2] *= grays.width
    size = (grays.width, grays.height)
    return np.stack([similarity_about_center(row, size)[:2] for row in shake])


class _Grays:
    """Turns frames to gray at the tracking width, and remembers their number and size."""

    def __init__(self, frames: Iterable[Image]) -> None:
        self._frames = frames
        self.num_frames = 0
        self.width = 0
        self.height = 0

    def __iter__(self) -> Iterator[Image]:
        for frame in self._frames:
            height, width = frame.shape[:2]
            if self.num_frames and (width, height) != (self.width, self.height):
                raise ValueError(
                    f"frame {self.num_frames} is {width}x{height}, the ones before are "
                    f"{self.width}x{self.height}"
                )
            self.num_frames += 1
            self.width, self.height = width, height
            gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            # Corners are tracked at this width at most; the corrections are for the true size.
            if width > REFERENCE_WIDTH_PX:
                size = (REFERENCE_WIDTH_PX, max(1, round(height * REFERENCE_WIDTH_PX / width)))
                gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
            yield np.asarray(gray, dtype=np.uint8)


def _track_similarity(previous: Image, current: Image) -> tuple[float, float, float, float]:
    # Shift of the center (fractions of the width), angle, log-scale; still if too little is found.
    still = (0.0, 0.0, 0.0, 0.0)
    found = cv2.goodFeaturesToTrack(previous, _MAX_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX)
    if found is None or len(found) < _MIN_CORNERS:
        return still
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(
        previous,
        current,
        found,
        np.empty_like(found),
        winSize=_TRACKING_WINDOW,
        maxLevel=_PYRAMID_LEVELS,
    )
    kept = status.ravel() > 0
    if kept.sum() < _MIN_CORNERS:
        return still
    height, width = previous.shape
    center = np.array([width - 1, height - 1]) / 2
    matrix, _ = cv2.estimateAffinePartial2D(
        found.reshape(-1, 2)[kept] - center,
        tracked.reshape(-1, 2)[kept] - center,
        method=cv2.RANSAC,
        ransacReprojThreshold=_RANSAC_THRESHOLD_PX,
    )
    if matrix is None:
        return still
    cosine, sine = float(matrix[0, 0]), float(matrix[1, 0])
    return (
        float(matrix[0, 2]) / width,
        float(matrix[1, 2]) / width,
        math.atan2(sine, cosine),
        math.log(math.hypot(cosine, sine)),
    )


def _smooth(path: NDArray[np.float64], sigma_frames: float) -> NDArray[np.float64]:
    # (frames, signals); point reflection continues slopes, plain reflection would bend pans.
    reach = max(1, math.ceil(_KERNEL_REACH * sigma_frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_frames) ** 2)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0)
    return np.asarray(windows @ (kernel / kernel.sum()))
