from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from deepstab.config import Params
from deepstab.data.clips import Clip
from deepstab.geometry import identity_theta
from deepstab.models.evidence import texture
from deepstab.training import losses
from deepstab.training.losses import GeneratorTerms


def textured_clip(flow: Tensor) -> Clip:
    rgb = torch.rand(1, 3, flow.shape[2], 64, 64)
    return {"unstable": rgb, "stable": rgb, "flow": flow, "aspect": torch.ones(1)}


def uniform_flow(shifts_px: list[float]) -> Tensor:
    flow = torch.zeros(1, 2, len(shifts_px), 64, 64)
    flow[:, 0] = torch.tensor(shifts_px)[None, :, None, None]
    return flow


def shift_theta(positions_px: list[float]) -> Tensor:
    theta = identity_theta(1, len(positions_px)).clone()
    theta[0, :, 0, 2] = torch.tensor(positions_px) / 32
    return theta


def test_path_loss_by_hand() -> None:
    # Motion 0, 1, -1, 1 px per frame: accelerations of 2 px, 100 * 2/32 = 6.25 percent units,
    # Charbonnier of it sqrt(6.25^2 + 0.1^2) - 0.1.
    clip = textured_clip(uniform_flow([0, 1, -1, 1]))
    expected = math.sqrt(6.25**2 + 0.01) - 0.1
    found = losses.path_smoothness(identity_theta(1, 4), clip)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_path_loss_vanishes_for_the_exact_correction_but_theta_loss_does_not() -> None:
    # Positions of the content: each frame's theta must follow them for the picture to stand still.
    positions = [0.0, 1.0, -0.5, 2.0, 1.5]
    flow = uniform_flow([0.0] + [-(b - a) for a, b in pairwise(positions)])
    theta = shift_theta(positions)
    assert float(losses.path_smoothness(theta, textured_clip(flow))) < 1e-4
    assert float(losses.theta_smoothness(theta)) > 1
    assert float(losses.theta_smoothness(identity_theta(1, 5))) == 0


def test_path_loss_ignores_a_steady_pan() -> None:
    clip = textured_clip(uniform_flow([0, 3, 3, 3, 3]))
    assert float(losses.path_smoothness(identity_theta(1, 5), clip)) < 1e-4


def test_flat_regions_do_not_vote() -> None:
    clip = textured_clip(uniform_flow([0, 1, -1, 1]))
    clip["flow"][..., :32] = 0  # a flat sky reports no motion,
    clip["unstable"][..., :32] = 0.5  # and has no texture
    weight = texture(clip["unstable"])
    assert float(weight[..., 5:59, 5:27].max()) < 0.01 < 0.5 < float(weight[..., 5:59, 37:].min())
    found = float(losses.path_smoothness(identity_theta(1, 4), clip))
    assert found == pytest.approx(math.sqrt(6.25**2 + 0.01) - 0.1, rel=0.05)


def test_l1_counts_only_inside() -> None:
    clip, reference = torch.zeros(1, 3, 2, 4, 4), torch.ones(1, 3, 2, 4, 4)
    reference[..., 2:] = 5
    inside = torch.ones(1, 1, 2, 4, 4)
    inside[..., 2:] = 0
    assert float(losses.masked_l1(clip, reference, inside)) == 1
    assert float(losses.masked_l1(clip, reference, 0 * inside)) == 0


def test_adversarial_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)])
    # Probabilities 1/2 and 3/4.
    expected_real = (math.log(2) + math.log(4 / 3)) / 2
    expected_fake = (math.log(2) + math.log(4)) / 2
    assert float(losses.adversarial(logits, real=True)) == pytest.approx(expected_real)
    assert float(losses.adversarial(logits, real=False)) == pytest.approx(expected_fake)


def test_correction_size_by_hand() -> None:
    # A shift of 0.1 in x on a square video: 100 * 0.1^2.
    theta = identity_theta(1, 3).clone()
    theta[..., 0, 2] = 0.1
    assert float(losses.correction_size(theta, torch.ones(1))) == pytest.approx(1.0)


def test_perceptual_sees_only_the_inside() -> None:
    perceptual = losses.PerceptualLoss(nn.Sequential(nn.Conv2d(3, 4, 3)), num_frames=2)
    clip, reference = torch.rand(2, 1, 3, 6, 16, 16)
    inside = torch.zeros(1, 1, 6, 16, 16)
    assert float(perceptual(clip, reference, inside).detach()) == 0
    assert float(perceptual(clip, reference, inside + 1).detach()) > 0


def test_total_is_the_weighted_sum(tiny_params: Params) -> None:
    terms = GeneratorTerms(*torch.tensor([1.0, 2, 3, 4, 5]))
    params = tiny_params.loss.model_copy(
        update={
            "lambda_gan": 1.0,
            "lambda_pixel": 10.0,
            "lambda_vgg": 100.0,
            "lambda_smooth": 1000.0,
            "lambda_identity": 10000.0,
        }
    )
    assert float(terms.total(params)) == 1 + 20 + 300 + 4000 + 50000
