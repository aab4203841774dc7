"""Motion between two frames, measured independently of the network: SIFT, RANSAC, Lucas-Kanade.

Convention: positions are (x, y) in px at a frame width of 640, whatever the true size, with the
origin at the center of the frame, x right and y down. Angles are positive from x to y
(clockwise on the screen). A motion carries the content of the first frame to the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import REFERENCE_WIDTH_PX, Image

# SIFT doubles its image first: at 320 px it costs a quarter and Lucas-Kanade restores precision.
_DETECTION_WIDTH_PX = 320
_MAX_FEATURES = 800
# Below SIFT's usual 0.04: aerial frames of sky and water have little contrast.
_CONTRAST_THRESHOLD = 0.01
_RATIO = 0.8
_RANSAC_THRESHOLD_PX = 3.0
_RANSAC_ITERATIONS = 2000
_RANSAC_CONFIDENCE = 0.999
# Unrelated frames agree in up to 6 matches by chance.
_MIN_INLIERS = 12
_REFINE_WINDOW = (21, 21)
_REFINE_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.005)
_REFINE_REACH = 3.0

Points: TypeAlias = NDArray[np.float32]
"""(num, 2) positions (x, y)."""


@dataclass(frozen=True, eq=False)
class Features:
    """What is kept of a frame to match it with others.

    Attributes:
        gray: (h, w) uint8, the frame at the working width or, if narrower, at its own.
        pixels: (num, 2) positions in `gray`, (x, y), pixel centers at whole numbers.
        descriptors: (num, 128) SIFT descriptors of unit length.
        px_per_pixel: (2,) working px per pixel of `gray`, for x and y.
    """

    gray: Image
    pixels: Points
    descriptors: NDArray[np.float32]
    px_per_pixel: NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """A similarity between consecutive frames, about the center of the frame.

    Attributes:
        shift_x_px, shift_y_px: where the content at the center goes, px at width 640.
        angle_rad: rotation of the content.
        log_scale: natural logarithm of its magnification.
        tracked: False where too little could be matched and no motion is assumed.
    """

    shift_x_px: float
    shift_y_px: float
    angle_rad: float
    log_scale: float
    tracked: bool


UNTRACKED = Motion(0.0, 0.0, 0.0, 0.0, tracked=False)
"""No motion, where none could be measured."""


def detect_features(frame: Image) -> Features:
    """Find and describe the SIFT features of a frame.

    Args:
        frame: (H, W, 3) uint8, RGB.

    Returns:
        Up to about 800 features, the strongest; none on a frame without texture.

    Raises:
        ValueError: the frame is not (H, W, 3) uint8.

    Source: Lowe 2004, as implemented by OpenCV.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    height, width = frame.shape[:2]
    luminance = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    gray = _shrink(luminance, REFERENCE_WIDTH_PX)
    small = _shrink(gray, _DETECTION_WIDTH_PX)
    sift = cv2.SIFT.create(
        nfeatures=_MAX_FEATURES,
        contrastThreshold=_CONTRAST_THRESHOLD,
        enable_precise_upscale=True,
    )
    keypoints, found = sift.detectAndCompute(small, None)
    gray_size = np.array(gray.shape[::-1])
    pixels = np.array([keypoint.pt for keypoint in keypoints]).reshape(-1, 2)
    pixels = (pixels + 0.5) * (gray_size / small.shape[::-1]) - 0.5
    descriptors = np.zeros((0, 128)) if found is None else np.asarray(found, dtype=np.float32)
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(
        gray=gray,
        pixels=pixels.astype(np.float32),
        descriptors=(descriptors / np.maximum(lengths, 1e-6)).astype(np.float32),
        px_per_pixel=np.array([width, height]) / gray_size * (REFERENCE_WIDTH_PX / width),
    )


def estimate_motion(previous: Features, current: Features) -> Motion:
    """Measure the similarity that carries the previous frame's content to the current frame.

    A robust homography separates the background from moving objects, matches are refined to
    subpixel precision, and a similarity is fitted to them by least squares. Deterministic.

    Args:
        previous: features of the earlier frame.
        current: features of the later frame, of the same size.

    Returns:
        The motion, or `UNTRACKED` where fewer than 12 matches agree.

    Raises:
        ValueError: the frames differ in size.

    Source: RANSAC scored by MAGSAC++ (Barath et al. 2020); Lucas-Kanade (Bouguet 2000);
    closed-form similarity (Umeyama 1991).
    """
    if previous.gray.shape != current.gray.shape:
        raise ValueError(
            f"frames differ in size: {previous.gray.shape} and {current.gray.shape} when shrunk"
        )
    before, after = _match(previous, current)
    before, after = _refine(previous.gray, current.gray, before, after)
    fit = _consensus(_centered(previous, before), _centered(current, after))
    return UNTRACKED if fit is None else _fit_similarity(fit[1], fit[2])


def estimate_homography(source: Features, target: Features) -> NDArray[np.float64] | None:
    """Measure the homography from a frame to its warped version, which may differ in size.

    Args:
        source: features of the original frame.
        target: features of the warped frame.

    Returns:
        (3, 3) matrix, source -> target in centered px at width 640 of either frame, with a last
        element of 1; None where fewer than 12 matches agree.

    Source: SIFT and RANSAC as in the field's measures (Liu et al. 2013), least squares on inliers.
    """
    before, after = _match(source, target)
    fit = _consensus(_centered(source, before), _centered(target, after))
    return None if fit is None else fit[0]


def _shrink(gray: Image, width_px: int) -> Image:
    height, width = gray.shape
    if width <= width_px:
        return gray
    size = (width_px, max(1, round(height * width_px / width)))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _match(first: Features, second: Features) -> tuple[Points, Points]:
    # Mutual nearest neighbors that pass Lowe's ratio test; unit vectors: d^2 = 2 - 2 cos.
    if min(len(first.pixels), len(second.pixels)) < _MIN_INLIERS:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    cosine = first.descriptors @ second.descriptors.T
    rows = np.arange(len(cosine))
    nearest = cosine.argmax(axis=1)
    mutual = cosine.argmax(axis=0)[nearest] == rows
    best = cosine[rows, nearest]
    cosine[rows, nearest] = -1
    unique = 1 - best < _RATIO**2 * (1 - cosine.max(axis=1))
    keep = mutual & unique
    return first.pixels[keep], second.pixels[nearest[keep]]


def _refine(first: Image, second: Image, before: Points, after: Points) -> tuple[Points, Points]:
    if not len(before):
        return before, after
    refined, found, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        before,
        after.copy(),
        winSize=_REFINE_WINDOW,
        maxLevel=0,
        criteria=_REFINE_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    moved = np.linalg.norm(refined - after, axis=1)
    keep = (found.ravel() > 0) & (moved < _REFINE_REACH)
    return before[keep], np.asarray(refined, dtype=np.float32)[keep]


def _centered(features: Features, pixels: Points) -> NDArray[np.float64]:
    center = (np.array(features.gray.shape[::-1]) - 1) / 2
    return np.asarray((pixels - center) * features.px_per_pixel, dtype=np.float64)


def _consensus(
    before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    # The homography and its inliers.
    if len(before) < _MIN_INLIERS:
        return None
    _, mask = cv2.findHomography(
        before,
        after,
        cv2.USAC_MAGSAC,
        _RANSAC_THRESHOLD_PX,
        maxIters=_RANSAC_ITERATIONS,
        confidence=_RANSAC_CONFIDENCE,
    )
    # An empty mask, or none, means that no model was found.
    inliers = np.zeros(len(before), bool) if mask is None or not mask.size else mask.ravel() > 0
    if inliers.sum() < _MIN_INLIERS:
        return None
    before, after = before[inliers], after[inliers]
    matrix, _ = cv2.findHomography(before, after, 0)
    if matrix is None or not matrix.size:
        return None
    return np.asarray(matrix, dtype=np.float64), before, after


def _fit_similarity(before: NDArray[np.float64], after: NDArray[np.float64]) -> Motion:
    # Complex numbers: after = factor * before + shift.
    source, target = before @ [1, 1j], after @ [1, 1j]
    spread = source - source.mean()
    factor = complex(np.vdot(spread, target) / np.vdot(spread, spread).real)
    shift = complex(target.mean() - factor * source.mean())
    return Motion(
        shift_x_px=shift.real,
        shift_y_px=shift.imag,
        angle_rad=math.atan2(factor.imag, factor.real),
        log_scale=math.log(abs(factor)),
        tracked=True,
    )
