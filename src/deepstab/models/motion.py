"""The camera's motion from the flow of cells: least squares, robustly reweighted, by a network.

Convention: motions as in `deepstab.trajectory`, lengths in isotropic units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from deepstab.geometry import turn
from deepstab.models.cells import NUM_FEATURES, Cells

# Residuals beyond this many isotropic units count a quarter in the last reweighting.
_INLIER_SCALE = 0.01
# Share of its evidence that the farthest outlier keeps.
_LOG_LEAST_SHARE = math.log(1e-4)
# The network may change a weight by e to this power either way, and no more.
_LARGEST_CHANGE = 6.0
# The network looks at squares of so many cells on a side.
_SQUARE = 2
# The two coordinates of the residual, its hand-made weight, its length, the number of the step.
_RESIDUAL_FEATURES = 5


@dataclass(frozen=True)
class MotionEstimate:
    """How the camera moved, and who said so.

    Attributes:
        steps: the motion after each reweighting that the network took part in.
        log_weights: the weights that led to it, up to a constant per frame.
    """

    steps: Float[Tensor, "batch steps time 4"]
    log_weights: Float[Tensor, "batch steps time cells"]

    @property
    def motion(self) -> Float[Tensor, "batch time 4"]:
        """The motion after the last."""
        return self.steps[:, -1]


class Reweighter(nn.Module):
    """A 3D-CNN that says which cells move with the camera, from how they depart from an estimate.

    Where the residuals of neighbors, of the frames before and after, texture and brightness speak
    for or against a cell, its hand-made weight is multiplied; at initialization by 1. A summary of
    the frame tells each cell how all the others depart.

    Source: unrolled reweighting after R. Ranftl and V. Koltun, Deep fundamental matrix estimation,
        ECCV 2018; here on a grid, over time, and on top of a hand-made weight.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = NUM_FEATURES + _RESIDUAL_FEATURES
        self.near = nn.Conv3d(inputs, channels, 3, padding=1)
        self.wide = _dilated(channels, 2)
        self.summary = nn.Linear(2 * channels, channels)
        self.wider = _dilated(channels, 4)
        self.change = nn.Conv3d(channels, 1, 1)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]  # the layer has a bias

    def forward(
        self,
        cells: Cells,
        residual: Float[Tensor, "batch time cells 2"],
        scale: float,
        progress: float,
    ) -> Float[Tensor, "batch time cells"]:
        """The change of each cell's log weight, within +-6.

        Args:
            cells: of a batch of clips.
            residual: of the flow against the present estimate.
            scale: residual that the hand-made weight counts a quarter.
            progress: of the reweighting, 0 to 1.
        """
        relative = residual / scale
        squared = relative.square().sum(dim=-1)
        bounded = relative / (1 + squared).sqrt().unsqueeze(-1)
        length = (residual / _INLIER_SCALE).square().sum(dim=-1)
        maps = [
            bounded[..., 0],
            bounded[..., 1],
            -squared.log1p() / 2,
            length.log1p() / 4,
            torch.full_like(length, progress),
        ]
        seen = torch.cat(
            [cells.features, torch.stack([cells.as_maps(values) for values in maps], dim=1)], dim=1
        )
        hidden = F.leaky_relu(self.near(F.avg_pool3d(seen, (1, _SQUARE, _SQUARE))), 0.1)
        hidden = hidden + F.leaky_relu(self.wide(hidden), 0.1)
        frame = torch.cat([hidden.mean(dim=(3, 4)), hidden.amax(dim=(3, 4))], dim=1)
        summary = self.summary(frame.transpose(1, 2)).transpose(1, 2)
        hidden = hidden + summary[..., None, None]
        hidden = hidden + F.leaky_relu(self.wider(hidden), 0.1)
        change = F.interpolate(self.change(hidden), seen.shape[2:], mode="trilinear")
        change = change[:, 0].flatten(2)
        return _LARGEST_CHANGE * torch.tanh(change / _LARGEST_CHANGE)


def estimate_motion(
    cells: Cells, reweighter: Reweighter | None, *, steps: int, learned_steps: int
) -> MotionEstimate:
    """Weighted least squares on the flow of cells, reweighted from coarse to fine, unrolled.

    The hand-made weight of a cell is its evidence times Geman and McClure's
    1 / (1 + (residual / scale)^2)^2, the scale halving from step to step down to .01; in the last
    steps the network multiplies it.

    Args:
        cells: of a batch of clips.
        reweighter: None: hand-made weights alone.
        steps: reweightings.
        learned_steps: so many of them, the last, are the network's too; 1 to `steps`.

    Source: S. Umeyama, Least-squares estimation of transformation parameters, PAMI 1991, in two
        dimensions; reweighting after P. Holland and R. Welsch, 1977.
    """
    points, targets = cells.points, cells.points + cells.displacement
    evidence = cells.evidence.log()
    motion = solve_similarity(points, targets, cells.evidence)
    motions, log_weights = list[Tensor](), list[Tensor]()
    for step in range(steps):
        scale = _INLIER_SCALE * 2.0 ** (steps - 1 - step)
        residual = targets - apply_similarity(motion, points)
        hand_made = -2 * (residual / scale).square().sum(dim=-1).log1p()
        current = evidence + torch.logaddexp(hand_made, hand_made.new_tensor(_LOG_LEAST_SHARE))
        if reweighter is not None and step >= steps - learned_steps:
            current = current + reweighter(cells, residual, scale, step / steps)
        motion = solve_similarity(points, targets, current.softmax(dim=-1))
        motions.append(motion)
        log_weights.append(current)
    return MotionEstimate(
        torch.stack(motions[-learned_steps:], 1), torch.stack(log_weights[-learned_steps:], 1)
    )


def solve_similarity(
    points: Float[Tensor, "batch 1 cells 2"],
    targets: Float[Tensor, "batch time cells 2"],
    weights: Float[Tensor, "batch time cells"],
) -> Float[Tensor, "batch time 4"]:
    """The similarity about the frame's center from points to targets, by weighted least squares.

    The weights are positive.
    """
    share = (weights / weights.sum(dim=-1, keepdim=True)).unsqueeze(-1)
    center, target_center = (share * points).sum(dim=2), (share * targets).sum(dim=2)
    p, q = points - center.unsqueeze(2), targets - target_center.unsqueeze(2)
    spread = (share * p.square()).sum(dim=(2, 3))
    dot = (share * p * q).sum(dim=(2, 3)) / spread
    cross = (share[..., 0] * (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0])).sum(dim=2) / spread
    turned = torch.stack(
        [
            dot * center[..., 0] - cross * center[..., 1],
            cross * center[..., 0] + dot * center[..., 1],
        ],
        dim=-1,
    )
    angle, log_scale = torch.atan2(cross, dot), 0.5 * (dot.square() + cross.square()).log()
    return torch.cat([target_center - turned, torch.stack([angle, log_scale], dim=-1)], dim=-1)


def apply_similarity(
    motion: Float[Tensor, "batch time 4"], points: Float[Tensor, "#batch 1 points 2"]
) -> Float[Tensor, "batch time points 2"]:
    """Move points by motions; one clip's may be those of all."""
    angle_rad, log_scale = motion[..., 2, None], motion[..., 3, None]
    return turn(points, angle_rad=angle_rad, log_scale=log_scale) + motion[..., :2].unsqueeze(2)


def _dilated(channels: int, dilation: int) -> nn.Conv3d:
    """3x3 within a frame, as far apart."""
    reach = (0, dilation, dilation)
    return nn.Conv3d(channels, channels, (1, 3, 3), padding=reach, dilation=(1, dilation, dilation))
