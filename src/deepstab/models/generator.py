"""StabGenerator: a clip of RGB and flow in, one affine theta per frame out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepstab.config import ModelParams
from deepstab.geometry import (
    cell_centers,
    identity_theta,
    isotropic_scale,
    similarity_to_theta,
)
from deepstab.models.evidence import agreement, texture
from deepstab.trajectory import (
    accumulate,
    correction,
    smoothing_matrix,
    straight_line_projector,
)

# Flow enters the encoder in isotropic units times this, about the range of RGB in [-1, 1].
_FLOW_GAIN = 10.0
# Cells vote on the motion at a quarter of the frame size.
_CELL_PX = 4
_MIN_CONFIDENCE = 1e-4
# Share of its evidence that a cell keeps where nothing is to be seen: some motion is always found.
_MIN_EVIDENCE = 2e-3


@dataclass(frozen=True)
class Correction:
    """What the generator says of a clip.

    theta: (batch, time, 2, 3), see `deepstab.geometry`.
    motion: (batch, time, 4), see `deepstab.trajectory`; None from the fc head.
    confidence: (batch, time, rows, columns), each cell's weight in the motion; None likewise.
    """

    theta: Tensor
    motion: Tensor | None = None
    confidence: Tensor | None = None


class ConvBlock(nn.Sequential):
    """3D convolution that halves height and width, group norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel: tuple[int, int, int]) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(inputs, outputs, kernel, stride=(1, 2, 2), padding=padding),
            nn.GroupNorm(4, outputs),
            nn.LeakyReLU(0.1),
        )


class Encoder(nn.Module):
    """Four halvings: early features at 1/4 of the frame size, late ones at 1/16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.early = nn.Sequential(
            ConvBlock(5, channels, kernel=(1, 5, 5)),
            ConvBlock(channels, 2 * channels, kernel=(3, 3, 3)),
        )
        self.late = nn.Sequential(
            ConvBlock(2 * channels, 4 * channels, kernel=(3, 3, 3)),
            ConvBlock(4 * channels, 4 * channels, kernel=(3, 3, 3)),
        )

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Early and late features of a clip (batch, 5, time, height, width)."""
        early = self.early(clip)
        return early, self.late(early)


class MotionHead(nn.Module):
    """Attention-weighted least squares on the flow, then a learned smoother of the path.

    1. Early features give every cell of every frame a positive confidence, on top of the evidence:
       its texture, and how well its flow explains the frame.
    2. Confidence-weighted least squares, robustly reweighted from coarse to fine, gives the
       similarity motion.
    3. Its accumulation is the camera path; a matrix over time, initialized as "path minus its
       Gaussian smoothing" and gated by the late features, gives the residual to take away.
    """

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        channels = params.channels
        self.attention = nn.Conv3d(2 * channels, 1, kernel_size=1)
        nn.init.zeros_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)  # type: ignore[arg-type]  # the layer has a bias
        # Residuals beyond this many isotropic units count little; the last step's, log scale.
        self.log_inlier_scale = nn.Parameter(torch.tensor(0.01).log())
        self.reweighting_steps = params.reweighting_steps
        length = params.clip_length
        smoother = torch.eye(length) - smoothing_matrix(length, params.smoothing_sigma)
        # One matrix for both shifts, one for the angle, one for the scale.
        self.residual_filter = nn.Parameter(smoother.repeat(3, 1, 1))
        self.gate = nn.Conv1d(4 * channels, 3, kernel_size=5, padding=2)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]
        self.register_buffer("detrend", straight_line_projector(length), persistent=False)

    def forward(
        self, early: Tensor, late: Tensor, flow: Tensor, evidence: Tensor, aspect: Tensor
    ) -> Correction:
        """Thetas, motion and confidence of a clip.

        Args:
            early: (batch, channel, time, height / 4, width / 4).
            late: (batch, channel, time, height / 16, width / 16).
            flow: (batch, 2, time, height, width), isotropic units.
            evidence: (batch, time, height / 4, width / 4), positive, about 1 at most.
            aspect: (batch,).
        """
        motion, confidence = self.estimate_motion(early, flow, evidence, aspect)
        path = accumulate(motion)
        residual = self.filter_path(path, gate=self.gate(late.mean(dim=(3, 4))))
        return Correction(
            similarity_to_theta(correction(path, residual), aspect), motion, confidence
        )

    def estimate_motion(
        self, early: Tensor, flow: Tensor, evidence: Tensor, aspect: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Motion (batch, time, 4) and confidence; arguments as for `forward`."""
        confidence = evidence * (F.softplus(self.attention(early))[:, 0] + _MIN_CONFIDENCE)
        displacement = F.avg_pool3d(flow, (1, _CELL_PX, _CELL_PX)).permute(0, 2, 3, 4, 1)
        rows, columns = confidence.shape[-2:]
        scale = isotropic_scale(aspect)[:, None, None, None]
        points = cell_centers(rows, columns).to(flow) * scale
        motion, confidence = fit_similarity(
            points.flatten(2, 3),
            displacement.flatten(2, 3),
            confidence.flatten(2),
            inlier_scale=self.log_inlier_scale.exp(),
            steps=self.reweighting_steps,
        )
        return motion, confidence.unflatten(2, (rows, columns))

    def filter_path(self, path: Tensor, *, gate: Tensor) -> Tensor:
        """The residual (batch, time, 4) of a path (batch, time, 4); gate (batch, 3, time)."""
        straight_free = torch.einsum("st,btk->bsk", self.detrend, path)
        residual = torch.cat(
            [
                torch.einsum("st,btk->bsk", matrix, straight_free[..., part])
                for matrix, part in zip(
                    self.residual_filter, (slice(0, 2), slice(2, 3), slice(3, 4)), strict=True
                )
            ],
            dim=-1,
        )
        strength = 2 * torch.sigmoid(gate).transpose(1, 2)
        return residual * torch.cat([strength[..., :1], strength], dim=-1)


class RegressionHead(nn.Module):
    """The plain regressor: features pooled to 4x4, fully connected, identity at the start."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        inputs = 4 * params.channels * 4 * 4
        self.regressor = nn.Sequential(nn.Linear(inputs, 128), nn.LeakyReLU(0.1), nn.Linear(128, 6))
        last = self.regressor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, late: Tensor) -> Correction:
        """Thetas from late features (batch, channel, time, height / 16, width / 16)."""
        batch, _, time = late.shape[:3]
        pooled = F.adaptive_avg_pool3d(late, (time, 4, 4)).transpose(1, 2).flatten(2)
        offset = self.regressor(pooled).unflatten(-1, (2, 3))
        # 0.1: the step of the original regressor, so that one update moves the picture little.
        return Correction(identity_theta(batch, time).to(late) + 0.1 * offset)


class StabGenerator(nn.Module):
    """3D-CNN encoder over RGB and flow, and a head that gives the thetas."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        self.encoder = Encoder(params.channels)
        self.head: MotionHead | RegressionHead = (
            MotionHead(params) if params.head == "motion" else RegressionHead(params)
        )

    def forward(self, rgb: Tensor, flow: Tensor, aspect: Tensor) -> Correction:
        """The correction of a batch of clips.

        Args:
            rgb: (batch, 3, time, height, width) in [0, 1].
            flow: (batch, 2, time, height, width), (dx, dy) px to the previous frame.
            aspect: (batch,), width / height of the video as filmed.
        """
        clip, isotropic_flow = _encoder_input(rgb, flow, aspect)
        early, late = self.encoder(clip)
        if isinstance(self.head, RegressionHead):
            return self.head(late)
        # The least squares and the path need single precision.
        with torch.autocast(rgb.device.type, enabled=False):
            return self.head(
                *(early.float(), late.float(), isotropic_flow.float()),
                *(_cell_evidence(rgb.float(), flow.float()), aspect),
            )

    def estimate_motion(self, rgb: Tensor, flow: Tensor, aspect: Tensor) -> Tensor:
        """The camera's motion (batch, time, 4) alone, at half the cost; arguments as `forward`.

        Raises:
            ValueError: the fc head knows no motion.
        """
        if not isinstance(self.head, MotionHead):
            raise ValueError("the fc head gives thetas, not motion; use model.head: motion")
        clip, isotropic_flow = _encoder_input(rgb, flow, aspect)
        early, evidence = self.encoder.early(clip), _cell_evidence(rgb, flow)
        return self.head.estimate_motion(early, isotropic_flow, evidence, aspect)[0]


def _encoder_input(rgb: Tensor, flow: Tensor, aspect: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's five channels, and the flow in isotropic units."""
    height, width = flow.shape[-2:]
    to_normalized = flow.new_tensor([2 / width, 2 / height])
    isotropic_flow = flow * (isotropic_scale(aspect) * to_normalized)[:, :, None, None, None]
    return torch.cat([2 * rgb - 1, _FLOW_GAIN * isotropic_flow], dim=1), isotropic_flow


def _cell_evidence(rgb: Tensor, flow: Tensor) -> Tensor:
    """Evidence (batch, time, height / 4, width / 4) that the flow of a cell is the scene's."""
    evidence = texture(rgb) * agreement(rgb, flow)
    return F.avg_pool3d(evidence, (1, _CELL_PX, _CELL_PX))[:, 0] + _MIN_EVIDENCE


def fit_similarity(
    points: Tensor, displacement: Tensor, weights: Tensor, *, inlier_scale: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Weighted least-squares similarity p -> p + displacement, robustly reweighted, unrolled.

    Each step multiplies the weights by Geman and McClure's 1 / (1 + (residual / scale)^2)^2, the
    scale halving from step to step down to `inlier_scale`.

    Args:
        points: (batch or 1, 1, cells, 2), isotropic.
        displacement: (batch, time, cells, 2).
        weights: (batch, time, cells), positive.
        inlier_scale: (), residual that counts a quarter in the last step, isotropic units.
        steps: reweightings.

    Returns:
        Motion (batch, time, 4): shift x, shift y, angle_rad, log scale about the frame's center;
        and the final weights (batch, time, cells).

    Source: S. Umeyama, Least-squares estimation of transformation parameters, PAMI 1991, in two
        dimensions; reweighting after P. Holland and R. Welsch, 1977.
    """
    targets = points + displacement
    current = weights
    motion = _solve_similarity(points, targets, current)
    for step in range(steps):
        scale = inlier_scale * 2.0 ** (steps - 1 - step)
        residual = targets - _apply_similarity(motion, points)
        squared = residual.square().sum(dim=-1) / scale.square()
        current = weights / (1 + squared).square() + _MIN_CONFIDENCE * weights
        motion = _solve_similarity(points, targets, current)
    return motion, current


def _solve_similarity(points: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
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


def _apply_similarity(motion: Tensor, points: Tensor) -> Tensor:
    factor, angle = motion[..., 3].exp(), motion[..., 2]
    cos, sin = (factor * angle.cos()).unsqueeze(-1), (factor * angle.sin()).unsqueeze(-1)
    x, y = points[..., 0], points[..., 1]
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    return turned + motion[..., :2].unsqueeze(2)
