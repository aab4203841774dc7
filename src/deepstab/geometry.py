"""Affine algebra, pixel <-> normalized coordinates, and warping.

Convention: a theta is exactly what `torch.nn.functional.affine_grid` takes: a 2x3 matrix from
output to input coordinates (x, y), each normalized to [-1, 1] per axis with
`align_corners=False`. Clips are (batch, channel, time, height, width), thetas (batch, time, 2, 3).

Rotations are rotations only in isotropic coordinates: normalized x times sqrt(aspect), normalized
y divided by sqrt(aspect), where aspect is width / height of the video as filmed. Their unit is
half the square root of the frame's area, whatever size the network sees.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def identity_theta(batch: int, time: int) -> Tensor:
    """Thetas (batch, time, 2, 3) that change nothing."""
    return torch.eye(2, 3).expand(batch, time, 2, 3)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The map p -> outer(inner(p)).

    Args:
        outer: (..., 2, 3).
        inner: (..., 2, 3).
    """
    linear = outer[..., :2] @ inner[..., :2]
    shift = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
    return torch.cat([linear, shift], dim=-1)


def invert(theta: Tensor) -> Tensor:
    """The inverse maps of thetas (..., 2, 3), which must not be singular."""
    a, b, x = theta[..., 0, 0], theta[..., 0, 1], theta[..., 0, 2]
    c, d, y = theta[..., 1, 0], theta[..., 1, 1], theta[..., 1, 2]
    determinant = a * d - b * c
    rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return torch.stack([row / determinant for row in rows], dim=-1).unflatten(-1, (2, 3))


def apply(theta: Tensor, points: Tensor) -> Tensor:
    """Map points.

    Args:
        theta: (..., 2, 3).
        points: (..., points, 2), (x, y) normalized.
    """
    return points @ theta[..., :2].transpose(-1, -2) + theta[..., 2].unsqueeze(-2)


def isotropic_scale(aspect: Tensor) -> Tensor:
    """Factors (batch, 2) from normalized to isotropic (x, y).

    Args:
        aspect: (batch,), width / height of the video as filmed.
    """
    root = aspect.sqrt()
    return torch.stack([root, 1 / root], dim=-1)


def similarity_to_theta(similarity: Tensor, aspect: Tensor) -> Tensor:
    """Similarities in isotropic coordinates as thetas.

    Args:
        similarity: (batch, time, 4): shift x, shift y (isotropic units), angle_rad, log scale, of
            the map p -> scale * rotation(angle) p + shift.
        aspect: (batch,), width / height of the video as filmed.

    Returns:
        (batch, time, 2, 3).
    """
    scale = isotropic_scale(aspect)[:, None, :]
    cos, sin = _scaled_rotation(similarity[..., 2], similarity[..., 3])
    ratio = aspect[:, None]
    shift = similarity[..., :2] / scale
    rows = [cos, -sin / ratio, shift[..., 0], sin * ratio, cos, shift[..., 1]]
    return torch.stack(rows, dim=-1).unflatten(-1, (2, 3))


def turn(points: Tensor, *, angle_rad: Tensor, log_scale: Tensor) -> Tensor:
    """Rotate points about the origin, from x to y, and scale them.

    Args:
        points: (..., 2), (x, y) isotropic.
        angle_rad: (...).
        log_scale: (...).
    """
    cos, sin = _scaled_rotation(angle_rad, log_scale)
    x, y = points[..., 0], points[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def warp(frames: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Warp every frame of a clip; outside the frame its edge is repeated.

    Args:
        frames: (batch, channel, time, height, width).
        theta: (batch, time, 2, 3).

    Returns:
        Warped clip of the same shape, and (batch, 1, time, height, width) with 1 where the source
        pixel lies inside the frame.
    """
    batch, channels, time, height, width = frames.shape
    images = frames.transpose(1, 2).reshape(batch * time, channels, height, width)
    grid = F.affine_grid(
        theta.reshape(batch * time, 2, 3), [batch * time, 1, height, width], align_corners=False
    )
    warped = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(dim=-1).to(frames.dtype)
    return (
        warped.reshape(batch, time, channels, height, width).transpose(1, 2),
        inside.reshape(batch, 1, time, height, width),
    )


def cell_centers(height: int, width: int) -> Tensor:
    """Normalized (x, y) of the centers of a grid of cells, (height, width, 2)."""
    ys = (2 * torch.arange(height) + 1) / height - 1
    xs = (2 * torch.arange(width) + 1) / width - 1
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)


def theta_to_pixels(theta: NDArray[np.float64], *, width: int, height: int) -> NDArray[np.float64]:
    """Thetas as pixel matrices, output -> input, for cv2.warpAffine with WARP_INVERSE_MAP.

    Pixel centers have integer coordinates (x, y), as in OpenCV; normalized x is
    (2 x + 1) / width - 1.

    Args:
        theta: (..., 2, 3).
        width: frame width, px.
        height: frame height, px.
    """
    to_normalized, to_pixels = _pixel_frames(width, height)
    return (to_pixels @ _homogeneous(theta) @ to_normalized)[..., :2, :]


def pixels_to_theta(
    matrices: NDArray[np.float64], *, width: int, height: int
) -> NDArray[np.float64]:
    """The inverse of `theta_to_pixels`."""
    to_normalized, to_pixels = _pixel_frames(width, height)
    return (to_normalized @ _homogeneous(matrices) @ to_pixels)[..., :2, :]


def corner_shift_px(theta: Tensor, *, width: float, height: float) -> Tensor:
    """How far thetas move the four corners, root mean square, px.

    Args:
        theta: (..., 2, 3).
        width: frame width, px.
        height: frame height, px.

    Returns:
        (...).
    """
    corners = theta.new_tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    half_size = theta.new_tensor([width / 2, height / 2])
    shift = (apply(theta, corners) - corners) * half_size
    return shift.square().sum(dim=-1).mean(dim=-1).sqrt()


def similarity_about_center(
    similarity: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """A similarity about the center of a frame as a matrix of homogeneous pixel coordinates.

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


def _scaled_rotation(angle_rad: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The two numbers a rotation with a scale is made of."""
    scale = log_scale.exp()
    return scale * angle_rad.cos(), scale * angle_rad.sin()


def _pixel_frames(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    to_normalized = np.array(
        [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]]
    )
    return to_normalized, np.linalg.inv(to_normalized)


def _homogeneous(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    last_row = np.broadcast_to([0.0, 0.0, 1.0], (*matrices.shape[:-2], 1, 3))
    return np.concatenate([matrices, last_row], axis=-2)
