"""Affine algebra and warping, differentiable.

Convention: a theta is exactly what `torch.nn.functional.affine_grid` takes: a 2x3 matrix from
output to input coordinates (x, y), each normalized to [-1, 1] per axis with
`align_corners=False`.

Shapes in signatures have the same names everywhere: batch, channel, time, height, width; points;
the cells of a frame, in rows and columns; steps, of the reweighting. Clips are "batch channel time
height width" and thetas "batch time 2 3"; 2 is (x, y), 4 a similarity, and "6 2" a wobble.

Rotations are rotations only in isotropic coordinates: normalized x times sqrt(aspect), normalized
y divided by sqrt(aspect), where aspect is width / height of the video as filmed. Their unit is
half the square root of the frame's area, whatever size the network sees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def identity_theta(batch: int, time: int) -> Float[Tensor, "{batch} {time} 2 3"]:
    """Make thetas that change nothing."""
    return torch.eye(2, 3).expand(batch, time, 2, 3)


def compose(
    outer: Float[Tensor, "... 2 3"], inner: Float[Tensor, "... 2 3"]
) -> Float[Tensor, "... 2 3"]:
    """Compose two maps to the one that takes p to outer(inner(p))."""
    linear = outer[..., :2] @ inner[..., :2]
    shift = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
    return torch.cat([linear, shift], dim=-1)


def invert(theta: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
    """Invert thetas, which must not be singular."""
    a, b, x = theta[..., 0, 0], theta[..., 0, 1], theta[..., 0, 2]
    c, d, y = theta[..., 1, 0], theta[..., 1, 1], theta[..., 1, 2]
    determinant = a * d - b * c
    rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return torch.stack([row / determinant for row in rows], dim=-1).unflatten(-1, (2, 3))


def apply(
    theta: Float[Tensor, "... 2 3"], points: Float[Tensor, "... points 2"]
) -> Float[Tensor, "... points 2"]:
    """Map points, (x, y) normalized, by thetas."""
    return points @ theta[..., :2].transpose(-1, -2) + theta[..., 2].unsqueeze(-2)


def isotropic_scale(aspect: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2"]:
    """Give the factors that take normalized (x, y) to isotropic ones.

    Args:
        aspect: width / height of the video as filmed.
    """
    root = aspect.sqrt()
    return torch.stack([root, 1 / root], dim=-1)


def similarity_to_theta(
    similarity: Float[Tensor, "batch time 4"], aspect: Float[Tensor, " batch"]
) -> Float[Tensor, "batch time 2 3"]:
    """Convert similarities in isotropic coordinates to thetas.

    Args:
        similarity: shift x, shift y (isotropic units), angle_rad and log scale of the map
            p -> scale * rotation(angle) p + shift.
        aspect: width / height of the video as filmed.
    """
    scale = isotropic_scale(aspect)[:, None, :]
    cos, sin = _scaled_rotation(similarity[..., 2], similarity[..., 3])
    ratio = aspect[:, None]
    shift = similarity[..., :2] / scale
    rows = [cos, -sin / ratio, shift[..., 0], sin * ratio, cos, shift[..., 1]]
    return torch.stack(rows, dim=-1).unflatten(-1, (2, 3))


def turn(
    points: Float[Tensor, "... 2"],
    *,
    angle_rad: Float[Tensor, ...],
    log_scale: Float[Tensor, ...],
) -> Float[Tensor, "... 2"]:
    """Rotate points, (x, y) isotropic, about the origin from x to y, and scale them."""
    cos, sin = log_scale.exp() * angle_rad.cos(), log_scale.exp() * angle_rad.sin()
    x, y = points[..., 0], points[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def warp(
    frames: Float[Tensor, "batch channel time height width"],
    theta: Float[Tensor, "batch time 2 3"],
) -> tuple[
    Float[Tensor, "batch channel time height width"], Float[Tensor, "batch 1 time height width"]
]:
    """Warp every frame of a clip; outside the frame its edge is repeated.

    Returns:
        The warped clip, and a mask with 1 where the source pixel lies inside the frame.
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


def cell_centers(height: int, width: int) -> Float[Tensor, "{height} {width} 2"]:
    """Give the centers of a grid of cells, (x, y) normalized."""
    ys = (2 * torch.arange(height) + 1) / height - 1
    xs = (2 * torch.arange(width) + 1) / width - 1
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)


def corner_shift_px(
    theta: Float[Tensor, "*batch 2 3"], *, width: float, height: float
) -> Float[Tensor, "*batch"]:
    """Measure how far thetas move the four corners, root mean square, px.

    Args:
        theta: maps of normalized coordinates.
        width: frame width, px.
        height: frame height, px.
    """
    corners = theta.new_tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    half_size = theta.new_tensor([width / 2, height / 2])
    shift = (apply(theta, corners) - corners) * half_size
    return shift.square().sum(dim=-1).mean(dim=-1).sqrt()


def _scaled_rotation(
    angle_rad: Float[Tensor, ...], log_scale: Float[Tensor, ...]
) -> tuple[Float[Tensor, ...], Float[Tensor, ...]]:
    """Give the two numbers that the matrix of a rotation with a scale is made of."""
    scale = log_scale.exp()
    return scale * angle_rad.cos(), scale * angle_rad.sin()
