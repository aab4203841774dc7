"""The terms of the generator's and the discriminator's loss.

Terms are means, so their weights do not depend on clip length or frame size. Lengths are in
percent of the isotropic unit (half the square root of the frame's area), so that a residual of
one is about a pixel at a frame width of 256.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepstab import geometry
from deepstab.config import LossParams
from deepstab.data.clips import Clip
from deepstab.models.evidence import texture
from deepstab.trajectory import second_difference

_PERCENT = 100.0
# A grid of points carried by the flow; not at the border, where correction leaves the frame.
_TRACK_GRID = 10
_TRACK_EXTENT = 0.85
_CHARBONNIER_EPS = 0.1


@dataclass(frozen=True)
class GeneratorTerms:
    """The unweighted terms of the generator's loss, each ()."""

    gan: Tensor
    pixel: Tensor
    vgg: Tensor
    smooth: Tensor
    identity: Tensor

    def total(self, params: LossParams) -> Tensor:
        """The weighted sum."""
        return (
            params.lambda_gan * self.gan
            + params.lambda_pixel * self.pixel
            + params.lambda_vgg * self.vgg
            + params.lambda_smooth * self.smooth
            + params.lambda_identity * self.identity
        )


def adversarial(logits: Tensor, *, real: bool) -> Tensor:
    """Binary cross-entropy of logits (batch,) against real (1) or stabilized (0)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def masked_l1(clip: Tensor, reference: Tensor, inside: Tensor) -> Tensor:
    """Mean absolute difference where the warped frame shows source pixels.

    Args:
        clip: (batch, 3, time, height, width).
        reference: the same shape.
        inside: (batch, 1, time, height, width), 0 or 1.
    """
    difference = (clip - reference).abs() * inside
    return difference.sum() / (inside.sum() * clip.shape[1]).clamp(min=1)


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

    def forward(self, clip: Tensor, reference: Tensor, inside: Tensor) -> Tensor:
        """Arguments as for `masked_l1`; outside the mask the reference stands in for the clip."""
        time = clip.shape[2]
        chosen = torch.linspace(0, time - 1, min(self.num_frames, time)).round().long()
        seen = torch.where(inside > 0, clip, reference)
        pictures = [x[:, :, chosen].transpose(1, 2).flatten(0, 1) for x in (seen, reference)]
        maps = [self.features((x - self.mean) / self.std) for x in pictures]
        return F.l1_loss(maps[0], maps[1])


def theta_smoothness(theta: Tensor) -> Tensor:
    """Mean squared second time-difference of theta itself: the literal formulation."""
    return (_PERCENT * second_difference(theta)).square().mean()


def path_smoothness(theta: Tensor, clip: Clip) -> Tensor:
    """Robust second difference of the stabilized path of points carried by the flow.

    A grid of output points is mapped into frame t by theta_t, carried to frame t - 1 by the flow
    there, and mapped back by the inverse of theta_{t-1}: the stabilized displacement. Its change
    from frame to frame is the second difference of the stabilized path; it is penalized by
    Charbonnier's function and weighted by the texture at the point.

    Args:
        theta: (batch, time, 2, 3).
        clip: a batch of clips.

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
    return (weight * penalty).sum() / weight.sum().clamp(min=1e-6)


def correction_size(theta: Tensor, aspect: Tensor) -> Tensor:
    """Mean squared displacement of the frame's corners: holds the crop.

    Args:
        theta: (batch, time, 2, 3).
        aspect: (batch,).
    """
    corners = theta.new_tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    shift = geometry.apply(theta, corners) - corners
    isotropic = shift * geometry.isotropic_scale(aspect)[:, None, None]
    return (isotropic.square().sum(dim=-1)).mean() * _PERCENT


def _sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values (batch, time, points, channel) of maps (batch, channel, time, h, w) at points."""
    batch, _, time = maps.shape[:3]
    images = maps.transpose(1, 2).flatten(0, 1)
    grid = points.flatten(0, 1).unsqueeze(1)
    values = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2).unflatten(0, (batch, time))
