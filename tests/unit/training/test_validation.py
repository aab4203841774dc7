"""Figures of held-out clips by hand."""

from __future__ import annotations

import math

import pytest
import torch

from deepstab.config import Params
from deepstab.data.clips import Clip
from deepstab.training.step import Networks, build_networks
from deepstab.training.validation import input_quality, stabilized_quality, to_images

STILL = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), 64)[0, :, None]


def still_clip(motion: torch.Tensor) -> Clip:
    frames = STILL.expand(-1, 12, -1, -1)
    return {
        "unstable": frames,
        "stable": frames,
        "flow": torch.zeros(2, 12, 64, 64),
        "motion": motion,
        "aspect": torch.tensor(1.0),
    }


@pytest.fixture(scope="module")
def networks(tiny_params: Params) -> Networks:
    return build_networks(tiny_params.model, tiny_params.train, perceptual=None)


def quality(networks: Networks, *clips: Clip, adversarial: bool = True) -> dict[str, float]:
    return stabilized_quality(
        networks, clips, border=0.1, device=torch.device("cpu"), adversarial=adversarial
    )


def test_motion_error_is_the_mean_over_frames_of_known_motion(networks: Networks) -> None:
    # The flow says nothing moved; the truth says 0 or .01 units, 3.2 px, or nothing.
    motion = torch.zeros(12, 4)
    motion[:6, 0] = 0.01
    motion[9:] = math.nan
    found = quality(networks, still_clip(motion))
    assert found["motion_error"] == pytest.approx(6 / 9 * 3.2, rel=1e-4)


def test_without_truth_there_is_no_motion_error(networks: Networks) -> None:
    found = quality(networks, still_clip(torch.full((12, 4), math.nan)))
    assert set(found) == {"psnr", "cropped_ssim", "discriminator_accuracy"}


def test_accuracy_counts_real_and_stabilized_clips(networks: Networks) -> None:
    clips = [still_clip(torch.zeros(12, 4))] * 3
    discriminator = networks.discriminator
    with torch.no_grad():
        discriminator.classifier.weight.zero_()
        discriminator.classifier.bias.fill_(1.0)
    # Who calls everything real is right on one half.
    assert quality(networks, *clips)["discriminator_accuracy"] == 0.5


def test_who_is_not_trained_is_not_judged(networks: Networks) -> None:
    found = quality(networks, still_clip(torch.zeros(12, 4)), adversarial=False)
    assert set(found) == {"psnr", "cropped_ssim", "motion_error"}


def test_the_mode_stays(networks: Networks) -> None:
    for mode in (True, False):
        networks.generator.train(mode)
        quality(networks, still_clip(torch.zeros(12, 4)))
        assert networks.generator.training is mode


def test_input_quality_by_hand() -> None:
    clip = still_clip(torch.zeros(12, 4))
    clip["stable"] = torch.full_like(clip["stable"], 100 / 255)
    clip["unstable"] = torch.full_like(clip["stable"], 110 / 255)
    found = input_quality([clip], border=0.1)
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / 100))


def test_images_are_rounded_and_clamped() -> None:
    clip = torch.tensor([-0.5, 0.499 / 255, 0.501 / 255, 2.0]).reshape(1, 1, 1, 4)
    assert to_images(clip).tolist() == [[[[0], [0], [1], [255]]]]
