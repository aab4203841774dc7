"""StabGenerator: a clip of RGB and flow in, one affine theta per frame out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deepstab.config import ModelParams
from deepstab.geometry import compose, identity_theta, isotropic_scale, similarity_to_theta
from deepstab.image import Image
from deepstab.models.cells import Cells, describe_cells
from deepstab.models.motion import MotionEstimate, Reweighter, estimate_motion
from deepstab.models.network import Floats32, SeeMotion
from deepstab.models.wobble import fit_wobble
from deepstab.trajectory import accumulate, correction, smoothing_matrix

# Flow enters the encoder in isotropic units times this, about the range of RGB in [-1, 1].
_FLOW_GAIN = 10.0


@dataclass(frozen=True)
class Correction:
    """What the generator says of a clip.

    Attributes:
        theta: see `deepstab.geometry`.
        cells: what the estimate was made from; None from the fc head, like all that follows.
        estimate: how the camera moved.
        wobble: see `deepstab.models.wobble`.
    """

    theta: Float[Tensor, "batch time 2 3"]
    cells: Cells | None = None
    estimate: MotionEstimate | None = None
    wobble: Float[Tensor, "batch time 6 2"] | None = None


class MotionHead(nn.Module):
    """The camera's motion by learned reweighting; its path less its Gaussian smoothing is theta.

    1. A 3D-CNN weighs the cells of every frame by how they depart from the present estimate, and
       weighted least squares on their flow gives the next one, from coarse to fine.
    2. What the similarity leaves is fitted by a quadratic field, the wobble.
    3. The accumulated motion is the camera path. What a Gaussian does not keep of it, and of the
       affine part of the accumulated wobble, is taken away. (Whole videos are planned instead, see
       `deepstab.stabilization`.)
    """

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        self.reweighter = Reweighter(params.channels)
        self.steps, self.learned_steps = params.reweighting_steps, params.learned_steps
        length = params.clip_length
        self.shake: Tensor
        self.quick: Tensor
        self.register_buffer(
            "shake", torch.eye(length) - smoothing_matrix(length, params.smoothing_sigma), False
        )
        self.register_buffer(
            "quick", torch.eye(length) - smoothing_matrix(length, params.wobble_sigma), False
        )

    def forward(
        self,
        rgb: Float[Tensor, "batch 3 time height width"],
        flow: Float[Tensor, "batch 2 time height width"],
        aspect: Float[Tensor, " batch"],
    ) -> Correction:
        """Arguments as for `StabGenerator.forward`."""
        cells, estimate, wobble = self.estimate(rgb, flow, aspect)
        path = accumulate(estimate.motion)
        theta = similarity_to_theta(correction(path, self.shake @ path), aspect)
        accumulated = -wobble.flatten(2).cumsum(dim=1)
        quick = (self.quick @ accumulated).unflatten(2, (-1, 2))
        return Correction(compose(_affine_part(quick, aspect), theta), cells, estimate, wobble)

    def estimate(
        self,
        rgb: Float[Tensor, "batch 3 time height width"],
        flow: Float[Tensor, "batch 2 time height width"],
        aspect: Float[Tensor, " batch"],
    ) -> tuple[Cells, MotionEstimate, Float[Tensor, "batch time 6 2"]]:
        """Cells, motion and wobble; arguments as for `StabGenerator.forward`."""
        cells = describe_cells(rgb, flow, aspect)
        estimate = estimate_motion(
            cells, self.reweighter, steps=self.steps, learned_steps=self.learned_steps
        )
        return cells, estimate, fit_wobble(cells, estimate.motion)


class ConvBlock(nn.Sequential):
    """3D convolution that halves height and width, group norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel: tuple[int, int, int]) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(inputs, outputs, kernel, stride=(1, 2, 2), padding=padding),
            nn.GroupNorm(4, outputs),
            nn.LeakyReLU(0.1),
        )


class RegressionHead(nn.Module):
    """The plain regressor: a 3D-CNN pooled to 4x4, fully connected, identity at the start."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        width = params.channels
        self.encoder = nn.Sequential(
            ConvBlock(5, width, kernel=(1, 5, 5)),
            ConvBlock(width, 2 * width, kernel=(3, 3, 3)),
            ConvBlock(2 * width, 4 * width, kernel=(3, 3, 3)),
            ConvBlock(4 * width, 4 * width, kernel=(3, 3, 3)),
        )
        self.regressor = nn.Sequential(
            nn.Linear(4 * width * 4 * 4, 128), nn.LeakyReLU(0.1), nn.Linear(128, 6)
        )
        last = self.regressor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self,
        rgb: Float[Tensor, "batch 3 time height width"],
        flow: Float[Tensor, "batch 2 time height width"],
        aspect: Float[Tensor, " batch"],
    ) -> Correction:
        """Arguments as for `StabGenerator.forward`."""
        height, width = flow.shape[-2:]
        gain = _FLOW_GAIN * isotropic_scale(aspect) * flow.new_tensor([2 / width, 2 / height])
        clip = torch.cat([2 * rgb - 1, flow * gain[..., None, None, None]], dim=1)
        features = self.encoder(clip)
        batch, _, time = features.shape[:3]
        pooled = F.adaptive_avg_pool3d(features, (time, 4, 4)).transpose(1, 2).flatten(2)
        offset = self.regressor(pooled).unflatten(-1, (2, 3))
        # 0.1: the step of the original regressor, so that one update moves the picture little.
        return Correction(identity_theta(batch, time).to(rgb) + 0.1 * offset)


class StabGenerator(nn.Module):
    """The 3D-CNN that gives the thetas, by the head that the parameters name."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        self.head: MotionHead | RegressionHead = (
            MotionHead(params) if params.head == "motion" else RegressionHead(params)
        )

    def forward(
        self,
        rgb: Float[Tensor, "batch 3 time height width"],
        flow: Float[Tensor, "batch 2 time height width"],
        aspect: Float[Tensor, " batch"],
    ) -> Correction:
        """The correction of a batch of clips.

        Args:
            rgb: in [0, 1].
            flow: (dx, dy) px to the previous frame.
            aspect: width / height of the video as filmed.
        """
        if isinstance(self.head, RegressionHead):
            return self.head(rgb, flow, aspect)
        # The least squares and the path need single precision.
        with torch.autocast(rgb.device.type, enabled=False):
            return self.head(rgb.float(), flow.float(), aspect)

    def estimate_motion(
        self,
        rgb: Float[Tensor, "batch 3 time height width"],
        flow: Float[Tensor, "batch 2 time height width"],
        aspect: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch time 4"], Float[Tensor, "batch time 6 2"]]:
        """The camera's motion and wobble; as `forward`.

        Raises:
            ValueError: the fc head knows no motion.
        """
        if not isinstance(self.head, MotionHead):
            raise ValueError("the fc head gives thetas, not motion; use model.head: motion")
        _, estimate, wobble = self.head.estimate(rgb, flow, aspect)
        return estimate.motion, wobble


class FramesToMotion(nn.Module):
    """What a generator with the motion head says of frames and flow as OpenCV has them."""

    def __init__(self, generator: StabGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        frames: UInt8[Tensor, "time height width 3"],
        flow: Float[Tensor, "time height width 2"],
        aspect: Float[Tensor, " 1"],
    ) -> tuple[Float[Tensor, "time 4"], Float[Tensor, "time 6 2"]]:
        """Motion and wobble of consecutive frames, as `deepstab.models.network.SeeMotion`."""
        rgb = frames.permute(3, 0, 1, 2).to(torch.float32) / 255
        motion, wobble = self.generator.estimate_motion(
            rgb[None], flow.permute(3, 0, 1, 2).contiguous()[None], aspect
        )
        return motion[0], wobble[0]


def motion_seer(generator: StabGenerator) -> SeeMotion:
    """Run a generator by torch, without gradients."""
    network = FramesToMotion(generator)

    @torch.no_grad()
    def see_motion(frames: Image, flow: Floats32, aspect: float) -> tuple[Floats32, Floats32]:
        motion, wobble = network(
            torch.from_numpy(frames), torch.from_numpy(flow), torch.tensor([aspect])
        )
        return motion.numpy(), wobble.numpy()

    return see_motion


def _affine_part(
    wobble: Float[Tensor, "batch time 6 2"], aspect: Float[Tensor, " batch"]
) -> Float[Tensor, "batch time 2 3"]:
    """Thetas p -> p + the affine part of a wobble."""
    scale = isotropic_scale(aspect)[:, None, None]
    by_axis = torch.cat([torch.ones_like(scale[..., :1]), scale], dim=-1)
    # Isotropic to normalized: what a step along an axis adds, over the unit of what is added.
    affine = wobble[..., :3, :].transpose(-1, -2) * by_axis / scale.transpose(-1, -2)
    shift, linear = affine[..., :1], affine[..., 1:]
    return identity_theta(*wobble.shape[:2]).to(wobble) + torch.cat([linear, shift], dim=-1)
