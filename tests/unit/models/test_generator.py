from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepstab.config import ModelParams, Params
from deepstab.data.clips import HeldOutClips, RandomClips
from deepstab.data.shards import ShardIndex
from deepstab.geometry import cell_centers, identity_theta, invert
from deepstab.models.discriminator import StabDiscriminator
from deepstab.models.generator import StabGenerator


@pytest.fixture(scope="module")
def model(tiny_params: Params) -> ModelParams:
    return tiny_params.model


def flow_of(similarity: Tensor, *, time: int, side: int) -> Tensor:
    """Flow (1, 2, time, side, side), px, of one motion (2, 3) from frame to previous frame."""
    points = cell_centers(side, side)
    moved = points @ similarity[:, :2].T + similarity[:, 2]
    flow = ((moved - points) * side / 2).permute(2, 0, 1)
    flow = flow[None, :, None].repeat(1, 1, time, 1, 1)
    flow[:, :, 0] = 0
    return flow


@pytest.mark.parametrize("head", ["motion", "fc"])
def test_a_still_clip_gives_the_identity_at_initialization(model: ModelParams, head: str) -> None:
    generator = StabGenerator(model.model_copy(update={"head": head}))
    correction = generator(
        torch.rand(2, 3, 12, 64, 80), torch.zeros(2, 2, 12, 64, 80), torch.tensor([1.5, 0.6])
    )
    assert correction.theta.shape == (2, 12, 2, 3)
    torch.testing.assert_close(correction.theta, identity_theta(2, 12), atol=1e-5, rtol=0)


def test_the_fc_head_is_the_identity_for_any_clip_at_initialization(model: ModelParams) -> None:
    generator = StabGenerator(model.model_copy(update={"head": "fc"}))
    flow = 5 * torch.randn(1, 2, 12, 64, 64)
    theta = generator(torch.rand(1, 3, 12, 64, 64), flow, torch.ones(1)).theta
    torch.testing.assert_close(theta, identity_theta(1, 12))


def test_motion_is_read_off_the_flow_in_isotropic_coordinates(model: ModelParams) -> None:
    # Rotation by 0.02 rad about the center of a 16:9 video, squashed to a square.
    aspect, angle = 16 / 9, 0.02
    rotation = torch.tensor([[1.0, -angle / aspect, 0.01], [angle * aspect, 1.0, 0.03]])
    correction = StabGenerator(model)(
        torch.rand(1, 3, 12, 64, 64), flow_of(rotation, time=12, side=64), torch.tensor([aspect])
    )
    assert correction.motion is not None
    found = correction.motion[0, 1:].mean(dim=0)
    root = aspect**0.5
    torch.testing.assert_close(
        found, torch.tensor([0.01 * root, 0.03 / root, angle, 0]), atol=3e-4, rtol=0
    )


def test_a_steady_pan_is_left_alone(model: ModelParams) -> None:
    # Do no harm: a straight camera path needs no correction, at the ends of the clip either.
    pan = torch.tensor([[1.0, 0, 0.06], [0, 1.0, -0.02]])
    flow = flow_of(pan, time=12, side=64)
    theta = StabGenerator(model)(torch.rand(1, 3, 12, 64, 64), flow, torch.ones(1)).theta
    torch.testing.assert_close(theta, identity_theta(1, 12), atol=1e-4, rtol=0)


def test_a_single_jump_is_spread_out(model: ModelParams) -> None:
    # The content jumps by 4 px at frame 6: the corrected path must move less at once.
    jump = flow_of(torch.tensor([[1.0, 0, 0.125], [0, 1, 0]]), time=12, side=64)
    jump[:, :, [*range(6), *range(7, 12)]] = 0
    theta = StabGenerator(model)(torch.rand(1, 3, 12, 64, 64), jump, torch.ones(1)).theta[0]
    shift = theta[:, 0, 2].detach()
    # Compensated displacement between frames 5 and 6: motion plus the corrections' difference.
    assert abs(float(0.125 + shift[6] - shift[5])) < 0.04


def test_every_parameter_learns(model: ModelParams) -> None:
    generator = StabGenerator(model)
    flow = torch.randn(1, 2, 12, 64, 64)
    # Zero-initialized layers pass no gradient to what lies below them in the first step.
    for parameter in generator.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    correction = generator(torch.rand(1, 3, 12, 64, 64), flow, torch.ones(1))
    (correction.theta * torch.randn(1, 12, 2, 3)).sum().backward()
    silent = [
        name
        for name, parameter in generator.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


def test_the_motion_head_stabilizes_real_flow_before_training(
    model: ModelParams, tiny_index: ShardIndex
) -> None:
    clips = HeldOutClips(tiny_index, split="test", clip_length=12)
    clip = clips[0]
    theta = StabGenerator(model)(clip["unstable"][None], clip["flow"][None], clip["aspect"][None])
    assert torch.isfinite(invert(theta.theta)).all()
    assert (theta.theta - identity_theta(1, 12)).abs().max() > 1e-3


def test_discriminator_learns_to_tell_two_kinds_apart(
    model: ModelParams, tiny_index: ShardIndex
) -> None:
    clips = RandomClips(tiny_index, clip_length=12, windows_per_video=1, seed=0)
    discriminator = StabDiscriminator(model)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=5e-3)
    real = torch.stack([clips[item]["stable"] for item in range(4)])
    fake = torch.nn.functional.avg_pool3d(real, (1, 7, 7), stride=1, padding=(0, 3, 3))
    labels = torch.tensor([1.0] * 4 + [0.0] * 4)
    for _ in range(60):
        optimizer.zero_grad()
        logits = discriminator(torch.cat([real, fake]))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
    assert logits.shape == (8,)
    assert ((logits > 0) == (labels > 0)).all()
