from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from deepstab.config import Params
from deepstab.data.clips import Clip
from deepstab.errors import TrainingError
from deepstab.geometry import identity_theta
from deepstab.models.evidence import texture
from deepstab.models.motion import MotionEstimate, Reweighter, estimate_motion
from deepstab.training import losses
from deepstab.training.losses import GeneratorTerms
from tests.unit.models.scenes import cells_of


def textured_clip(flow: Tensor) -> Clip:
    rgb = torch.rand(1, 3, flow.shape[2], 64, 64)
    return {
        "unstable": rgb,
        "stable": rgb,
        "flow": flow,
        "motion": torch.zeros(1, flow.shape[2], 4),
        "aspect": torch.ones(1),
    }


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
    terms = GeneratorTerms(*torch.tensor([1.0, 2, 3, 4, 5, 6]))
    params = tiny_params.loss.model_copy(
        update={
            "lambda_gan": 1.0,
            "lambda_pixel": 10.0,
            "lambda_vgg": 100.0,
            "lambda_smooth": 1000.0,
            "lambda_identity": 10000.0,
            "lambda_motion": 100000.0,
        }
    )
    assert float(terms.total(params)) == 1 + 20 + 300 + 4000 + 50000 + 600000


def test_motion_error_by_hand() -> None:
    # A square video is 640x640: one isotropic unit is 320 px.
    true = torch.zeros(1, 2, 4)
    motion = torch.tensor([[[0.01, -0.02, 0, 0], [0, 0, 0, math.log(1.1)]]])
    error = losses.motion_error_px(motion, true, torch.ones(1))
    assert error.shape == (1, 2, 5, 2)
    shifted = torch.tensor([3.2, -6.4]).expand(5, 2)
    torch.testing.assert_close(error[0, 0], shifted, atol=1e-4, rtol=0)
    # The points at .6 of the half side move out by a tenth of that, the one in the middle stays.
    outward = error[0, 1].abs()
    expected = torch.tensor([[0.0, 0]] + [[19.2, 19.2]] * 4)
    torch.testing.assert_close(outward, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("aspect", [16 / 9, 9 / 16])
def test_motion_error_is_in_px_at_width_640_whatever_the_aspect(aspect: float) -> None:
    # A normalized shift of .01 in x is 3.2 px of 640, in y .01 of half the height.
    root = aspect**0.5
    motion = torch.tensor([[[0.01 * root, 0.01 / root, 0, 0]]])
    error = losses.motion_error_px(motion, torch.zeros(1, 1, 4), torch.tensor([aspect]))
    torch.testing.assert_close(error[0, 0, 0], torch.tensor([3.2, 3.2 / aspect]))


TRUE = torch.tensor([[[0.0, 0, 0, 0], [0.05, -0.02, 0.03, 0.01], [-0.1, 0.04, -0.02, 0]]])


def of_motion(true: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """The motion loss of steps (1, steps, time, 4) whose weights are equal, and their gradient."""
    cells = cells_of(TRUE, aspect=1.0)
    steps = steps.clone().requires_grad_()
    estimate = MotionEstimate(steps, torch.zeros(1, steps.shape[1], TRUE.shape[1], 256))
    clip = textured_clip(uniform_flow([0, 0, 0])) | {"motion": true}
    loss = losses.motion_loss(cells, estimate, clip)  # type: ignore[arg-type]
    if loss.requires_grad:
        loss.backward()
    return loss.detach(), torch.zeros(()) if steps.grad is None else steps.grad


def test_motion_loss_by_hand() -> None:
    # All cells move with the camera and weigh the same: no divergence. One step, one coordinate
    # off by .001, .32 px, in the last frame: its error 3.2 units of .1 px, and one change of it.
    off = TRUE.clone()
    off[0, 2, 0] += 0.001
    loss, _ = of_motion(TRUE, off[:, None])
    of_error = math.log1p(3.2**2) / 2
    assert float(loss) == pytest.approx(of_error / 3 + 0.25 * of_error / 2, rel=1e-4)


def test_later_steps_count_more() -> None:
    off = TRUE + torch.tensor([0.01, 0, 0, 0])
    early, _ = of_motion(TRUE, torch.stack([off, TRUE], dim=1))
    late, _ = of_motion(TRUE, torch.stack([TRUE, off], dim=1))
    assert float(late) == pytest.approx(2 * float(early), rel=1e-3)


def test_motion_loss_is_least_at_the_truth() -> None:
    at_truth, _ = of_motion(TRUE, TRUE[:, None])
    assert float(at_truth) == pytest.approx(0, abs=1e-5)
    for coordinate in range(4):
        for change in (-0.002, 0.002):
            off = TRUE.clone()
            off[0, 1, coordinate] += change
            assert of_motion(TRUE, off[:, None])[0] > at_truth + 0.01


def test_frames_of_unknown_motion_have_no_say() -> None:
    unknown = TRUE.clone()
    unknown[0, 1] = math.nan
    off = TRUE.clone()
    off[0, 2, 0] += 0.001
    loss, gradient = of_motion(unknown, off[:, None])
    # Half of what is known is off, and of no pair of neighbors both are known.
    assert float(loss) == pytest.approx(math.log1p(3.2**2) / 2 / 2, rel=1e-4)
    wild = off.clone()
    wild[0, 1] = 9.0
    assert of_motion(unknown, wild[:, None])[0] == loss
    assert not gradient[0, 0, 1].any()
    assert torch.isfinite(gradient).all()
    nowhere, gradient = of_motion(torch.full_like(TRUE, math.nan), off[:, None])
    assert float(nowhere) == 0
    assert not gradient.any()


def test_motion_loss_tells_who_is_an_outlier() -> None:
    cells = cells_of(TRUE, aspect=1.0)
    cells.displacement[:, :, :64] += 0.3
    clip = textured_clip(uniform_flow([0, 0, 0])) | {"motion": TRUE}
    weights = torch.zeros(1, 1, 3, 256)
    found = []
    for log_weight in (0.0, -8.0):  # of the quarter that moves on its own
        weights[..., :64] = log_weight
        estimate = MotionEstimate(TRUE[:, None], weights)
        found.append(float(losses.motion_loss(cells, estimate, clip)))  # type: ignore[arg-type]
    # Equal weights diverge from weights on three quarters by ln(4 / 3).
    assert found[0] == pytest.approx(0.3 * math.log(4 / 3), rel=1e-2)
    assert found[1] < 0.01 * found[0]


def test_its_gradient_lowers_the_error() -> None:
    # Sixty percent of the cells belong to something else, as bright and as textured: the formula
    # follows it, and the network learns from the truth not to.
    cells = cells_of(TRUE, aspect=1.0)
    cells.displacement[:, :, 100:] += torch.tensor([0.02, -0.03])
    clip = textured_clip(uniform_flow([0, 0, 0])) | {"motion": TRUE}
    reweighter = Reweighter(4)
    optimizer = torch.optim.Adam(reweighter.parameters(), lr=0.02)
    errors = []
    for _ in range(30):
        estimate = estimate_motion(cells, reweighter, steps=4, learned_steps=2)
        error = losses.motion_error_px(estimate.motion, TRUE, clip["aspect"])
        errors.append(float(error.detach().norm()))
        optimizer.zero_grad()
        losses.motion_loss(cells, estimate, clip).backward()  # type: ignore[arg-type]
        optimizer.step()
    assert errors[-1] < 0.3 * errors[0]


def test_the_perceptual_loss_is_loaded_where_it_counts(tiny_params: Params) -> None:
    device = torch.device("cpu")
    unused = tiny_params.loss.model_copy(update={"lambda_vgg": 0.0})
    assert losses.load_perceptual_loss(unused, None, device) is None
    used = tiny_params.loss.model_copy(update={"lambda_vgg": 0.5})
    for missing in (None, Path("/nowhere/vgg19.pth")):
        with pytest.raises(TrainingError, match=r"lambda_vgg is 0\.5 but there are no VGG19"):
            losses.load_perceptual_loss(used, missing, device)


def test_a_mask_of_every_channel_is_no_mask() -> None:
    clip = torch.zeros(1, 3, 2, 4, 4)
    with pytest.raises(TypeCheckError, match="inside"):
        losses.masked_l1(clip, clip, torch.ones_like(clip))
