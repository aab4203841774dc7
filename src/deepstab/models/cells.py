"""What is known of each cell of a frame before the camera's motion is: where it went, and how far
that can be believed.

A cell is a square of 4x4 px of the network's frame. Lengths are isotropic units, see
`deepstab.geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deepstab.geometry import cell_centers, isotropic_scale
from deepstab.models.evidence import agreement, texture

CELL_PX = 4
"""Side of a cell, px of the network's frame."""

NUM_FEATURES = 8
"""Channels of `Cells.features`."""

# Share of its evidence that a cell keeps where nothing is to be seen: some motion is always found.
_MIN_EVIDENCE = 2e-3
_LEAST_SPREAD = 1e-4


@dataclass(frozen=True)
class Cells:
    """The cells of a batch of clips, row by row.

    Attributes:
        points: their centers (x, y).
        displacement: mean flow to the previous frame.
        evidence: positive, about 1 at most: texture times agreement.
        features: about -1 to 1, for a network to read: evidence (log), texture, agreement, spread
            of the flow within the cell (log), luma, and x, y and squared distance from the center.
    """

    points: Float[Tensor, "batch 1 cells 2"]
    displacement: Float[Tensor, "batch time cells 2"]
    evidence: Float[Tensor, "batch time cells"]
    features: Float[Tensor, "batch features time rows columns"]

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return self.features.shape[-2]

    def as_maps(
        self, values: Float[Tensor, "batch time cells"]
    ) -> Float[Tensor, "batch time rows columns"]:
        """Values of cells as maps."""
        return values.unflatten(-1, (self.rows, -1))


def describe_cells(
    rgb: Float[Tensor, "batch 3 time height width"],
    flow: Float[Tensor, "batch 2 time height width"],
    aspect: Float[Tensor, " batch"],
) -> Cells:
    """Pool frames and flow to cells.

    Args:
        rgb: in [0, 1].
        flow: (dx, dy) px to the previous frame.
        aspect: width / height of the video as filmed.
    """
    height, width = flow.shape[-2:]
    scale = isotropic_scale(aspect)
    isotropic_flow = (
        flow * (scale * flow.new_tensor([2 / width, 2 / height]))[..., None, None, None]
    )
    seen, agreed = texture(rgb), agreement(rgb, flow)
    displacement = _pool(isotropic_flow)
    variance = _pool(isotropic_flow.square()) - displacement.square()
    spread = variance.clamp(min=0).sum(dim=1, keepdim=True).sqrt()
    evidence = _pool(seen * agreed) + _MIN_EVIDENCE
    centers = cell_centers(height // CELL_PX, width // CELL_PX).to(flow) * scale[:, None, None]
    place = torch.cat([centers, centers.square().sum(dim=-1, keepdim=True)], dim=-1)
    place = place.permute(0, 3, 1, 2)[:, :, None].expand(-1, -1, flow.shape[2], -1, -1)
    features = [
        evidence.log() / 3,
        _pool(seen),
        _pool(agreed),
        (spread + _LEAST_SPREAD).log() / 3 + 2,
        2 * _pool(rgb.mean(dim=1, keepdim=True)) - 1,
        place,
    ]
    return Cells(
        points=centers.flatten(1, 2)[:, None],
        displacement=displacement.permute(0, 2, 3, 4, 1).flatten(2, 3),
        evidence=evidence[:, 0].flatten(2),
        features=torch.cat(features, dim=1),
    )


def _pool(
    maps: Float[Tensor, "batch channel time height width"],
) -> Float[Tensor, "batch channel time rows columns"]:
    # Frame by frame: OpenVINO pads few channels to sixteen where time is a dimension of its own.
    pooled = F.avg_pool2d(maps.flatten(1, 2), CELL_PX)
    return pooled.unflatten(1, maps.shape[1:3])
