"""One step of the two networks, and that steps can overfit a clip."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from deepstab.config import Params
from deepstab.data.clips import RandomClips
from deepstab.data.shards import ShardIndex
from deepstab.errors import TrainingError
from deepstab.geometry import warp
from deepstab.training.losses import motion_error_px
from deepstab.training.step import (
    Networks,
    build_accelerator,
    build_networks,
    resampled,
    train_step,
)


def clip_of(index: ShardIndex) -> dict[str, Tensor]:
    item = RandomClips(index, clip_length=12, windows_per_video=1, seed=1)[0]
    return {key: value[None] for key, value in item.items()}  # type: ignore[attr-defined]


def overfitted(networks: Networks, clip: dict[str, Tensor], params: Params, steps: int) -> None:
    accelerator = build_accelerator(params.train)
    for step in range(steps):
        train_step(networks, clip, params.loss, accelerator, step=step)  # type: ignore[arg-type]


def with_losses(params: Params, **weights: float) -> Params:
    zero = {f"lambda_{name}": 0.0 for name in ("gan", "pixel", "smooth", "identity", "motion")}
    faster = params.train.model_copy(update={"lr_g": 1e-2})
    return params.model_copy(
        update={"loss": params.loss.model_copy(update=zero | weights), "train": faster}
    )


def test_the_motion_of_one_clip_can_be_overfitted(
    tiny_index: ShardIndex, tiny_params: Params
) -> None:
    # Half of the frame goes somewhere else, and more of it is believed: the formula follows it.
    clip = clip_of(tiny_index)
    clip["flow"] = torch.zeros_like(clip["flow"])
    clip["flow"][..., 28:] = 1.5
    clip["motion"] = torch.zeros_like(clip["motion"])
    params = with_losses(tiny_params, lambda_motion=1.0)
    networks = build_networks(params.model, params.train, perceptual=None)

    def error_px() -> float:
        with torch.no_grad():
            motion, _ = networks.generator.estimate_motion(
                clip["unstable"], clip["flow"], clip["aspect"]
            )
        return float(motion_error_px(motion, clip["motion"], clip["aspect"]).norm(dim=-1).mean())

    before = error_px()
    overfitted(networks, clip, params, 60)
    assert before > 1
    assert error_px() < 0.5 * before


def test_the_fc_head_overfits_the_picture(tiny_index: ShardIndex, tiny_params: Params) -> None:
    clip = clip_of(tiny_index)
    params = with_losses(tiny_params, lambda_pixel=1.0)
    model = params.model.model_copy(update={"head": "fc"})
    networks = build_networks(
        model, params.train.model_copy(update={"lr_g": 3e-3}), perceptual=None
    )
    untouched = float((clip["unstable"] - clip["stable"]).abs().mean())
    overfitted(networks, clip, params, 120)
    with torch.no_grad():
        theta = networks.generator(clip["unstable"], clip["flow"], clip["aspect"]).theta
    stabilized, _ = warp(clip["unstable"], theta)
    assert float((stabilized - clip["stable"]).abs().mean()) < 0.6 * untouched


def test_a_loss_that_is_not_finite_changes_nothing(
    tiny_index: ShardIndex, tiny_params: Params
) -> None:
    clip = clip_of(tiny_index)
    clip["stable"][0, 0, 0, 0, 0] = math.nan
    networks = build_networks(tiny_params.model, tiny_params.train, perceptual=None)
    before = [value.clone() for value in networks.generator.parameters()]
    with pytest.raises(TrainingError, match=r"step 0: loss term '\w+' is nan"):
        overfitted(networks, clip, tiny_params, 1)
    for value, wanted in zip(networks.generator.parameters(), before, strict=True):
        assert torch.equal(value, wanted)


def test_resampled_is_a_shift_of_a_fraction_of_a_pixel() -> None:
    # On a ramp, of one level a px in x and ten in y, a shift of the sampling adds that much.
    ramp = torch.arange(16.0) + 10 * torch.arange(16.0)[:, None]
    clip = ramp.expand(1, 3, 4, 16, 16)
    for step, in_x in ((0, 0.0), (1, 0.618034), (2, 0.236068)):
        moved = resampled(clip, step=step) - clip
        expected = torch.full((1, 3, 4, 14, 14), in_x + 10 * (1 - in_x))
        torch.testing.assert_close(moved[..., 1:-1, 1:-1], expected, atol=1e-3, rtol=0)
