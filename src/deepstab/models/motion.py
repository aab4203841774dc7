"""The camera's motion from the flow of cells: least squares, robustly reweighted, by a network.

Convention: motions as in `deepstab.trajectory`, lengths in isotropic units.
"""

from __future__ import annotations

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
_LEAST_SHARE = 1e-4
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
    fit = SimilarityFit(cells)
    linear = fit.solve(cells.evidence / cells.evidence.sum(dim=-1, keepdim=True))
    solutions, log_weights = list[Tensor](), list[Tensor]()
    for step in range(steps):
        scale = _INLIER_SCALE * 2.0 ** (steps - 1 - step)
        residual = fit.residual(linear)
        squared = (residual / scale).square().sum(dim=-1)
        current = (cells.evidence * ((1 + squared) ** -2 + _LEAST_SHARE)).log()
        if reweighter is not None and step >= steps - learned_steps:
            current = current + reweighter(cells, residual, scale, step / steps)
        linear = fit.solve(current.softmax(dim=-1))
        solutions.append(linear)
        log_weights.append(current)
    return MotionEstimate(
        to_motion(torch.stack(solutions[-learned_steps:], 1)),
        torch.stack(log_weights[-learned_steps:], 1),
    )


class SimilarityFit:
    """Weighted least squares on the cells of clips, for one set of weights after the other.

    A similarity is linear here: (u, v, x, y), batch time 4, isotropic units, moves a point p, as a
    complex number about the frame's center, by (u + iv) p + x + iy; `to_motion` converts it.
    """

    def __init__(self, cells: Cells) -> None:
        """Prepare what does not depend on the weights.

        Args:
            cells: of a batch of clips.
        """
        x, y = cells.points.unbind(dim=-1)
        dx, dy = cells.displacement.unbind(dim=-1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        fields = [(x, y), (-y, x), (one, zero), (zero, one)]
        self._displacement = cells.displacement
        # Of the points, batch cells 5; of point and displacement, batch time cells 4; what each
        # number of a similarity adds to the displacement, batch 4 2*cells.
        self._of_points = torch.stack([x, -y, y, x, x.square() + y.square()], dim=-1)[:, 0]
        self._of_both = torch.stack([dx, dy, x * dx + y * dy, x * dy - y * dx], dim=-1)
        self._fields = torch.cat([torch.stack(field, -1).flatten(2) for field in fields], dim=1)

    def solve(self, weights: Float[Tensor, "batch time cells"]) -> Float[Tensor, "batch time 4"]:
        """The similarity that explains the displacement best.

        Args:
            weights: positive, their sum over the cells is 1.

        Returns:
            (u, v, x, y), see the class.
        """
        means = weights @ self._of_points
        # Rows are complex numbers: times this, they are multiplied by the conjugate of the points'
        # center, times its transpose by the center.
        conjugate = means[..., :4].unflatten(-1, (2, 2))
        spread = means[..., 4:] - conjugate[..., 0, :].square().sum(dim=-1, keepdim=True)
        shift, product = (weights.unsqueeze(-2) @ self._of_both).split(2, dim=-1)
        turn_less_one = (product - shift @ conjugate) / spread.unsqueeze(-1)
        at_origin = shift - turn_less_one @ conjugate.transpose(-1, -2)
        return torch.cat([turn_less_one, at_origin], dim=-1).squeeze(-2)

    def residual(
        self, linear: Float[Tensor, "batch time 4"]
    ) -> Float[Tensor, "batch time cells 2"]:
        """What a similarity (u, v, x, y), see the class, leaves of the displacement."""
        return self._displacement - (linear @ self._fields).unflatten(-1, (-1, 2))


def to_motion(linear: Float[Tensor, "... 4"]) -> Float[Tensor, "... 4"]:
    """The motion, see `deepstab.trajectory`, of a similarity (u, v, x, y) of `SimilarityFit`."""
    u, v = linear[..., 0:1], linear[..., 1:2]
    log_scale = torch.log1p(2 * u + u.square() + v.square()) / 2
    return torch.cat([linear[..., 2:], torch.atan2(v, 1 + u), log_scale], dim=-1)


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
