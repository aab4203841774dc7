from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from deepstab.config import ModelParams, Params
from deepstab.data.clips import HeldOutClips
from deepstab.data.shards import ShardIndex
from deepstab.geometry import cell_centers, identity_theta, invert
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
    assert correction.estimate is not None
    found = correction.estimate.motion[0, 1:].mean(dim=0)
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


@pytest.mark.parametrize("head", ["motion", "fc"])
def test_every_parameter_learns(model: ModelParams, head: str) -> None:
    generator = StabGenerator(model.model_copy(update={"head": head}))
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


def test_what_no_similarity_explains_is_taken_out_of_theta(model: ModelParams) -> None:
    # Frame 6 is sheared as by a rolling shutter, x by .02 y (normalized), and frame 7 back.
    aspect, shear = torch.tensor([16 / 9]), 0.02
    rgb = torch.nn.functional.interpolate(torch.rand(3, 32, 32)[None], 64)[0]
    still = rgb[None, :, None].expand(1, 3, 12, 64, 64)
    flow = torch.zeros(1, 2, 12, 64, 64)
    sheared = torch.tensor([[1.0, -shear, 0], [0, 1, 0]])
    flow[:, :, 6] = flow_of(sheared, time=2, side=64)[:, :, 1]
    flow[:, :, 7] = -flow[:, :, 6]
    correction = StabGenerator(model)(still, flow, aspect)
    assert correction.wobble is not None
    assert correction.wobble.shape == (1, 12, 6, 2)
    theta = correction.theta[0]
    # Frame 6 shows at y what was .02 y further in x before: the theta looks there for it.
    change = theta[6] - (theta[5] + theta[7]) / 2
    expected = torch.tensor([[0, shear, 0], [0, 0, 0]])
    torch.testing.assert_close(change, expected, atol=0.2 * shear, rtol=0)


def test_motion_and_wobble_of_a_clip_are_those_of_its_correction(model: ModelParams) -> None:
    generator = StabGenerator(model)
    clip = (torch.rand(2, 3, 12, 64, 64), torch.randn(2, 2, 12, 64, 64), torch.ones(2))
    motion, wobble = generator.estimate_motion(*clip)
    correction = generator(*clip)
    assert correction.estimate is not None
    assert correction.wobble is not None
    assert torch.equal(motion, correction.estimate.motion)
    assert torch.equal(wobble, correction.wobble)


def test_the_fc_head_knows_no_motion(model: ModelParams) -> None:
    generator = StabGenerator(model.model_copy(update={"head": "fc"}))
    with pytest.raises(ValueError, match=r"use model\.head: motion"):
        generator.estimate_motion(
            torch.rand(1, 3, 12, 64, 64), torch.zeros(1, 2, 12, 64, 64), torch.ones(1)
        )


def test_the_motion_head_stabilizes_real_flow_before_training(
    model: ModelParams, tiny_index: ShardIndex
) -> None:
    clips = HeldOutClips(tiny_index, split="test", clip_length=12)
    clip = clips[0]
    theta = StabGenerator(model)(clip["unstable"][None], clip["flow"][None], clip["aspect"][None])
    assert torch.isfinite(invert(theta.theta)).all()
    assert (theta.theta - identity_theta(1, 12)).abs().max() > 1e-3


def test_flow_of_another_length_is_no_clip(model: ModelParams) -> None:
    with pytest.raises(TypeCheckError, match="flow"):
        StabGenerator(model)(
            torch.rand(1, 3, 12, 64, 64), torch.zeros(1, 2, 11, 64, 64), torch.ones(1)
        )
