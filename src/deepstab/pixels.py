"""Pixel <-> normalized coordinates, for OpenCV.

Convention: thetas as in `deepstab.geometry`, which imports torch; who only warps and scores does
without.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def theta_to_pixels(theta: NDArray[np.float64], *, width: int, height: int) -> NDArray[np.float64]:
    """Convert thetas to pixel matrices, output -> input, for cv2.warpAffine, WARP_INVERSE_MAP.

    Pixel centers have integer coordinates (x, y), as in OpenCV; normalized x is
    (2 x + 1) / width - 1.

    Args:
        theta: (..., 2, 3).
        width: frame width, px.
        height: frame height, px.
    """
    to_normalized, to_pixels = _pixel_frames(width, height)
    return (to_pixels @ _homogeneous(theta) @ to_normalized)[..., :2, :]


def similarity_about_center(
    similarity: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Write a similarity about the center of a frame as a matrix of homogeneous pixels.

    Args:
        similarity: (4,): shift x, shift y (px), angle_rad, log scale.
        size: (width, height) of the frame, px.

    Returns:
        (3, 3), of the map p -> scale * rotation(angle) (p - center) + center + shift.
    """
    x, y, angle_rad, log_scale = similarity
    center_x, center_y = (size[0] - 1) / 2, (size[1] - 1) / 2
    cos = np.exp(log_scale) * np.cos(angle_rad)
    sin = np.exp(log_scale) * np.sin(angle_rad)
    return np.array(
        [
            [cos, -sin, center_x + x - cos * center_x + sin * center_y],
            [sin, cos, center_y + y - sin * center_x - cos * center_y],
            [0, 0, 1],
        ]
    )


def pixels_to_theta(
    matrices: NDArray[np.float64], *, width: int, height: int
) -> NDArray[np.float64]:
    """Convert pixel matrices, output -> input, to thetas: the inverse of `theta_to_pixels`."""
    to_normalized, to_pixels = _pixel_frames(width, height)
    return (to_normalized @ _homogeneous(matrices) @ to_pixels)[..., :2, :]


def _pixel_frames(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    to_normalized = np.array(
        [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]]
    )
    return to_normalized, np.linalg.inv(to_normalized)


def _homogeneous(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    last_row = np.broadcast_to([0.0, 0.0, 1.0], (*matrices.shape[:-2], 1, 3))
    return np.concatenate([matrices, last_row], axis=-2)
