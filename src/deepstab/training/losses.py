"""The terms of the generator's and the discriminator's loss.

Terms are means, so their weights do not depend on clip length or frame size. Lengths are in
percent of the isotropic unit (half the square root of the frame's area), so that a residual of
one is about a pixel at a frame width of 256.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepstab import geometry
from deepstab.config import LossParams
from deepstab.data.clips import Clip
from deepstab.errors import TrainingError
from deepstab.image import REFERENCE_WIDTH_PX
from deepstab.models.cells import Cells
from deepstab.models.evidence import texture
from deepstab.models.motion import MotionEstimate, apply_similarity
from deepstab.models.vgg19 import load_vgg19_features
from deepstab.training.processes import ratio
from deepstab.trajectory import second_difference

Scalar: TypeAlias = Float[Tensor, ""]
"""One number."""

_PERCENT = 100.0
# A grid of points carried by the flow; not at the border, where correction leaves the frame.
_TRACK_GRID = 10
_TRACK_EXTENT = 0.85
_CHARBONNIER_EPS = 0.1
_FIVE_POINTS = ((0.0, 0.0), (0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (-0.6, -0.6))
# Errors of the motion, px at width 640: above this one their logarithm counts, below the square.
_MOTION_ERROR_PX = 0.1
# A cell whose flow departs by this from the true motion, isotropic units, is an outlier.
_INLIER_SCALE = 0.003
# Weights of what the motion term adds to its error: jitter of the error, and who is an inlier.
_MOTION_JITTER, _MOTION_INLIERS = 0.25, 0.3


@dataclass(frozen=True)
class GeneratorTerms:
    """The unweighted terms of the generator's loss."""

    gan: Scalar
    pixel: Scalar
    vgg: Scalar
    smooth: Scalar
    identity: Scalar
    motion: Scalar

    def total(self, params: LossParams) -> Scalar:
        """The weighted sum."""
        return (
            params.lambda_gan * self.gan
            + params.lambda_pixel * self.pixel
            + params.lambda_vgg * self.vgg
            + params.lambda_smooth * self.smooth
            + params.lambda_identity * self.identity
            + params.lambda_motion * self.motion
        )


def adversarial(logits: Float[Tensor, " batch"], *, real: bool) -> Scalar:
    """Binary cross-entropy of logits against real (1) or stabilized (0)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def masked_l1(
    clip: Float[Tensor, "batch 3 time height width"],
    reference: Float[Tensor, "batch 3 time height width"],
    inside: Float[Tensor, "batch 1 time height width"],
) -> Scalar:
    """Mean absolute difference where the warped frame shows source pixels: inside is 1, not 0."""
    difference = (clip - reference).abs() * inside
    return ratio(difference.sum(), inside.sum() * clip.shape[1], least=1)


class PerceptualLoss(nn.Module):
    """Mean absolute difference of VGG19 features (relu3_1) of a few frames.

    Source: J. Johnson et al., Perceptual losses for real-time style transfer, ECCV 2016.
    """

    def __init__(self, features: nn.Sequential, *, num_frames: int) -> None:
        super().__init__()
        self.features = features
        self.mean: Tensor
        self.std: Tensor
        self.num_frames = num_frames
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(
        self,
        clip: Float[Tensor, "batch 3 time height width"],
        reference: Float[Tensor, "batch 3 time height width"],
        inside: Float[Tensor, "batch 1 time height width"],
    ) -> Scalar:
        """Arguments as for `masked_l1`; outside the mask the reference stands in for the clip."""
        time = clip.shape[2]
        chosen = torch.linspace(0, time - 1, min(self.num_frames, time)).round().long()
        seen = torch.where(inside > 0, clip, reference)
        pictures = [x[:, :, chosen].transpose(1, 2).flatten(0, 1) for x in (seen, reference)]
        maps = [self.features((x - self.mean) / self.std) for x in pictures]
        return F.l1_loss(maps[0], maps[1])


def load_perceptual_loss(
    params: LossParams, vgg19: Path | None, device: torch.device
) -> PerceptualLoss | None:
    """The perceptual loss on a device; None where its weight is zero.

    Args:
        params: the loss section.
        vgg19: weights of VGG19.
        device: where to put them.

    Raises:
        TrainingError: the weights are needed and missing.
    """
    if params.lambda_vgg == 0:
        return None
    if vgg19 is None or not vgg19.is_file():
        raise TrainingError(
            f"loss.lambda_vgg is {params.lambda_vgg} but there are no VGG19 weights at "
            f"{vgg19}; run the download stage, or set lambda_vgg to 0"
        )
    features = load_vgg19_features(vgg19)
    return PerceptualLoss(features, num_frames=params.vgg_frames).to(device)


def theta_smoothness(theta: Float[Tensor, "batch time 2 3"]) -> Scalar:
    """Mean squared second time-difference of theta itself: the literal formulation."""
    return (_PERCENT * second_difference(theta)).square().mean()


def path_smoothness(theta: Float[Tensor, "batch time 2 3"], clip: Clip) -> Scalar:
    """Robust second difference of the stabilized path of points carried by the flow.

    A grid of output points is mapped into frame t by theta_t, carried to frame t - 1 by the flow
    there, and mapped back by the inverse of theta_{t-1}: the stabilized displacement. Its change
    from frame to frame is the second difference of the stabilized path; it is penalized by
    Charbonnier's function and weighted by the texture at the point.

    Source: the compensated-path formulation of P. Liu et al., Bundled camera paths, SIGGRAPH
        2013, as a loss.
    """
    flow, aspect = clip["flow"], clip["aspect"]
    height, width = flow.shape[-2:]
    axis = torch.linspace(-_TRACK_EXTENT, _TRACK_EXTENT, _TRACK_GRID, device=theta.device)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    in_frame = geometry.apply(theta, points)
    seen = texture(clip["unstable"])
    sampled = _sample(torch.cat([flow, seen], dim=1), in_frame)
    to_normalized = flow.new_tensor([2 / width, 2 / height])
    carried = in_frame + sampled[..., :2] * to_normalized
    before = geometry.apply(geometry.invert(theta[:, :-1]), carried[:, 1:])
    displacement = (before - points) * geometry.isotropic_scale(aspect)[:, None, None]
    acceleration = _PERCENT * (displacement[:, 1:] - displacement[:, :-1])
    weight = sampled[:, 1:-1, :, 2] * sampled[:, 2:, :, 2]
    squared = acceleration.square().sum(dim=-1)
    penalty = (squared + _CHARBONNIER_EPS**2).sqrt() - _CHARBONNIER_EPS
    return ratio((weight * penalty).sum(), weight.sum(), least=1e-6)


def motion_loss(cells: Cells, estimate: MotionEstimate, clip: Clip) -> Scalar:
    """How far the estimated motion is from the true one, where that is known; 0 where nowhere.

    Of every learned step, later ones counting more: the logarithm of the error at five points of
    the frame; that of its change from frame to frame, the jitter that no planner can take out; and
    the Kullback-Leibler divergence of the cells' weights from those that the true motion gives.

    Args:
        cells: of a batch of clips.
        estimate: of the same.
        clip: the batch; its `motion` is NaN where unknown.
    """
    known = clip["motion"].isfinite().all(dim=-1)
    true = clip["motion"].nan_to_num()
    departure = cells.points + cells.displacement - apply_similarity(true, cells.points)
    outlier = (departure / _INLIER_SCALE).square().sum(dim=-1)
    wanted = (cells.evidence.log() - 2 * outlier.log1p()).log_softmax(dim=-1)
    total = true.new_zeros(())
    num_steps = estimate.steps.shape[1]
    for step in range(num_steps):
        error = motion_error_px(estimate.steps[:, step], true, clip["aspect"])
        log_weights = estimate.log_weights[:, step].log_softmax(dim=-1)
        divergence = (wanted.exp() * (wanted - log_weights)).sum(dim=-1)
        terms = _log_length(error) + _MOTION_INLIERS * divergence
        both = known[:, 1:] & known[:, :-1]
        jitter = _log_length(error[:, 1:] - error[:, :-1])
        of_step = _mean_where(terms, known) + _MOTION_JITTER * _mean_where(jitter, both)
        total = total + (step + 1) / num_steps * of_step
    return total


def motion_error_px(
    motion: Float[Tensor, "batch time 4"],
    true: Float[Tensor, "batch time 4"],
    aspect: Float[Tensor, " batch"],
) -> Float[Tensor, "batch time 5 2"]:
    """Where a motion sends five points, less where the true one does, px at width 640."""
    scale = geometry.isotropic_scale(aspect)
    points = (motion.new_tensor(_FIVE_POINTS) * scale[:, None])[:, None]
    error = apply_similarity(motion, points) - apply_similarity(true, points)
    return error * (REFERENCE_WIDTH_PX / 2 / scale[:, :1])[..., None, None]


def correction_size(
    theta: Float[Tensor, "batch time 2 3"], aspect: Float[Tensor, " batch"]
) -> Scalar:
    """Mean squared displacement of the frame's corners: holds the crop."""
    corners = theta.new_tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    shift = geometry.apply(theta, corners) - corners
    isotropic = shift * geometry.isotropic_scale(aspect)[:, None, None]
    return (isotropic.square().sum(dim=-1)).mean() * _PERCENT


def _sample(
    maps: Float[Tensor, "batch channel time height width"],
    points: Float[Tensor, "batch time points 2"],
) -> Float[Tensor, "batch time points channel"]:
    """Values of maps at points."""
    batch, _, time = maps.shape[:3]
    images = maps.transpose(1, 2).flatten(0, 1)
    grid = points.flatten(0, 1).unsqueeze(1)
    values = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2).unflatten(0, (batch, time))


def _log_length(
    error_px: Float[Tensor, "batch time points 2"],
) -> Float[Tensor, "batch time"]:
    """The mean over points of log(1 + (length / .1 px)^2) / 2."""
    return (error_px / _MOTION_ERROR_PX).square().sum(dim=-1).log1p().mean(dim=-1) / 2


def _mean_where(values: Float[Tensor, "batch time"], known: Bool[Tensor, "batch time"]) -> Scalar:
    return ratio((values * known).sum(), known.sum(), least=1)
