"""Cells that move as told, for the tests of what is estimated from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepstab.geometry import cell_centers
from deepstab.models.cells import NUM_FEATURES, Cells


def similarity_matrix(motion: Tensor) -> Tensor:
    """A motion (4,) as a matrix (2, 3), written out."""
    x, y, angle, log_scale = (float(value) for value in motion)
    cos, sin = math.exp(log_scale) * math.cos(angle), math.exp(log_scale) * math.sin(angle)
    return torch.tensor([[cos, -sin, x], [sin, cos, y]], dtype=motion.dtype)


def cells_of(
    motion: Tensor, *, side: int = 16, aspect: float = 16 / 9, noise: float = 0.0
) -> Cells:
    """Cells of equal evidence that all move by motions (batch, time, 4)."""
    batch, time = motion.shape[:2]
    scale = torch.tensor([aspect**0.5, aspect**-0.5]).to(motion)
    points = (cell_centers(side, side).to(motion) * scale).flatten(0, 1)
    moved = torch.stack(
        [points @ m[:, :2].T + m[:, 2] for m in map(similarity_matrix, motion.flatten(0, 1))]
    )
    displacement = (moved - points).unflatten(0, (batch, time))
    return Cells(
        points=points.expand(batch, 1, -1, -1),
        displacement=displacement + noise * torch.randn_like(displacement),
        evidence=torch.full((batch, time, side * side), 0.5).to(motion),
        features=torch.rand(batch, NUM_FEATURES, time, side, side).to(motion),
    )
