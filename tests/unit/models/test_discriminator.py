"""The discriminator sees how a clip moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deepstab.config import ModelParams, Params
from deepstab.geometry import identity_theta, warp
from deepstab.models.discriminator import StabDiscriminator


@pytest.fixture(scope="module")
def model(tiny_params: Params) -> ModelParams:
    return tiny_params.model


def shaken(num: int, *, amplitude_px: float) -> Tensor:
    """Clips of blurred noise, each frame shifted another way by about so much."""
    pictures = nn.functional.avg_pool2d(torch.rand(num, 3, 36, 36), 5, stride=1)
    pictures = ((pictures - 0.5) * 3 + 0.5).clamp(0, 1)
    theta = identity_theta(num, 8).clone()
    theta[..., 2] = amplitude_px / 16 * torch.randn(num, 8, 2)
    return warp(pictures[:, :, None].expand(-1, -1, 8, -1, -1), theta)[0]


def accuracy_on_new_clips(
    discriminator: StabDiscriminator, real: Callable[[int], Tensor], fake: Callable[[int], Tensor]
) -> float:
    """Share of clips told rightly after some steps on others."""
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=5e-3)
    labels = torch.tensor([1.0] * 4 + [0.0] * 4)
    for _ in range(30):
        optimizer.zero_grad()
        logits = discriminator(torch.cat([real(4), fake(4)]))
        nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
    with torch.no_grad():
        logits = discriminator(torch.cat([real(4), fake(4)]))
    assert logits.shape == (8,)
    return float(((logits > 0) == (labels > 0)).float().mean())


def test_it_learns_to_tell_a_shaking_clip_from_a_still_one(model: ModelParams) -> None:
    accuracy = accuracy_on_new_clips(
        StabDiscriminator(model),
        lambda num: shaken(num, amplitude_px=0.0),
        lambda num: shaken(num, amplitude_px=0.5),
    )
    assert accuracy >= 0.8


def test_it_learns_to_tell_a_weak_shake_from_a_strong_one(model: ModelParams) -> None:
    # A norm in the first block would make the two alike.
    accuracy = accuracy_on_new_clips(
        StabDiscriminator(model),
        lambda num: shaken(num, amplitude_px=0.1),
        lambda num: shaken(num, amplitude_px=0.4),
    )
    assert accuracy >= 0.8


@pytest.mark.parametrize("channels", [4, 8])
def test_the_first_block_has_no_norm_and_all_others_have(model: ModelParams, channels: int) -> None:
    discriminator = StabDiscriminator(model.model_copy(update={"channels": channels}))
    norms = [
        layer.num_channels for layer in discriminator.modules() if isinstance(layer, nn.GroupNorm)
    ]
    assert norms == [2 * channels, 4 * channels, 8 * channels]


def test_a_steady_brightening_is_no_acceleration(model: ModelParams) -> None:
    discriminator = StabDiscriminator(model)
    seen: list[Tensor] = []
    discriminator.features[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    clip = torch.zeros(1, 3, 5, 64, 64)
    clip[:] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.55])[:, None, None]
    discriminator(clip)
    acceleration = seen[0][0, 3, :, 0, 0]
    # 20 times the second difference, zero at both ends where there is none.
    torch.testing.assert_close(
        acceleration, torch.tensor([0, 0, 0, 20 * 0.05, 0]), atol=1e-5, rtol=0
    )
    assert (seen[0][0, :3] == 2 * clip[0] - 1).all()
