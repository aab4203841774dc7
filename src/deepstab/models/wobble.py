"""What of the picture's movement no similarity explains: rolling shutter, perspective, parallax.

Convention: a wobble is a field over the frame, quadratic in (x, y), as coefficients (6, 2) of
1, x, y, x^2, xy, y^2 for its two coordinates, in isotropic units. That of frame t is by how much
more than its similarity says each point comes from elsewhere in frame t - 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepstab.models.cells import Cells
from deepstab.models.motion import apply_similarity

NUM_TERMS = 6
"""Terms of a quadratic field."""

# Residuals that count a quarter, isotropic units, coarse to fine.
_SCALES = (0.016, 0.008, 0.004, 0.004, 0.004)
# Pulls the field to zero where little evidence speaks for it: a share of all evidence.
_RIDGE = 3e-3


def field_terms(points: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 6"]:
    """The terms of a quadratic field at points."""
    x, y = points[..., 0], points[..., 1]
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=-1)


def fit_wobble(
    cells: Cells, motion: Float[Tensor, "batch time 4"]
) -> Float[Tensor, "batch time 6 2"]:
    """The field that explains best what a motion leaves, robustly; zero without evidence."""
    residual = cells.points + cells.displacement - apply_similarity(motion, cells.points)
    terms = field_terms(cells.points)
    products = (terms.unsqueeze(-1) * terms.unsqueeze(-2)).flatten(-2)[:, 0]
    pulls = (terms.unsqueeze(-1) * residual.unsqueeze(-2)).flatten(-2)
    ridge = torch.eye(NUM_TERMS, dtype=terms.dtype, device=terms.device) * _RIDGE
    ridge[0, 0] = 0
    ridge = ridge * cells.evidence.sum(dim=-1)[..., None, None]
    left = residual
    for scale in _SCALES:
        weights = cells.evidence / (1 + (left / scale).square().sum(dim=-1)).square()
        normal = (weights @ products).unflatten(-1, (NUM_TERMS, -1)) + ridge
        sides = (weights.unsqueeze(-2) @ pulls).unflatten(-1, (NUM_TERMS, -1)).squeeze(-3)
        field = solve_positive(normal, sides)
        left = residual - terms @ field
    return field


def solve_positive(
    matrices: Float[Tensor, "batch time terms terms"], sides: Float[Tensor, "batch time terms 2"]
) -> Float[Tensor, "batch time terms 2"]:
    """Solve linear equations by Gauss and Jordan's elimination.

    Positive definite matrices need no pivoting. (Graphs that run without torch have no
    `torch.linalg.solve`.)
    """
    size = matrices.shape[-1]
    rows = torch.cat([matrices, sides], dim=-1)
    units = torch.eye(size, dtype=rows.dtype, device=rows.device).unsqueeze(-1)
    for index, unit in enumerate(units):
        pivot = rows[..., index : index + 1, :] / rows[..., index : index + 1, index : index + 1]
        rows = rows - (rows[..., index : index + 1] - unit) * pivot
    return rows[..., size:]
