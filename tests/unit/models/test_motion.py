"""The camera's motion from cells whose motion is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from deepstab.models.cells import NUM_FEATURES, Cells
from deepstab.models.motion import (
    Reweighter,
    SimilarityFit,
    apply_similarity,
    estimate_motion,
    to_motion,
)
from tests.unit.models.scenes import cells_of, similarity_matrix

MOTION = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.05, -0.02, 0.03, 0.01], [-0.1, 0.04, -0.02, 0.0]]])


def with_an_object(cells: Cells, share: float = 0.25) -> tuple[Cells, Tensor]:
    """The same with the first cells moving on their own, and which."""
    outlier = torch.zeros(cells.evidence.shape[-1], dtype=torch.bool)
    outlier[: int(share * len(outlier))] = True
    displacement = cells.displacement.clone()
    displacement[:, :, outlier] += torch.tensor([0.4, -0.3]).to(displacement)
    return dataclasses.replace(cells, displacement=displacement), outlier


def taught(channels: int = 4) -> Reweighter:
    """A reweighter that is not zero at its end."""
    reweighter = Reweighter(channels)
    torch.nn.init.normal_(reweighter.change.weight)
    return reweighter


def test_a_motion_turns_scales_then_shifts() -> None:
    points = torch.tensor([[[[0.3, -0.7], [1.2, 0.4]]]])
    for row in MOTION[0]:
        matrix = similarity_matrix(row)
        expected = points @ matrix[:, :2].T + matrix[:, 2]
        torch.testing.assert_close(apply_similarity(row[None, None], points), expected)


def test_least_squares_solves_what_apply_did_whatever_the_weights() -> None:
    motion = 0.3 * torch.randn(2, 5, 4, dtype=torch.float64)
    cells = cells_of(motion)
    weights = torch.rand(2, 5, 256, dtype=torch.float64) + 0.01
    fit = SimilarityFit(cells)
    linear = fit.solve(weights / weights.sum(dim=-1, keepdim=True))
    torch.testing.assert_close(to_motion(linear), motion)
    residual = fit.residual(linear)
    torch.testing.assert_close(residual, torch.zeros_like(residual), atol=1e-12, rtol=0)


def test_what_a_similarity_leaves_is_what_apply_does_not_do() -> None:
    cells = cells_of(MOTION.double(), noise=0.1)
    fit = SimilarityFit(cells)
    linear = fit.solve(torch.full((1, 3, 256), 1 / 256, dtype=torch.float64))
    moved = apply_similarity(to_motion(linear), cells.points)
    left = cells.points + cells.displacement - moved
    assert left.abs().max() > 0.1
    torch.testing.assert_close(fit.residual(linear), left)


def test_least_squares_weighs() -> None:
    # Two crowds at the same places, one shifted by 1 in x with three times the other's weight.
    square = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    cells = Cells(
        points=torch.cat([square, square])[None, None],
        displacement=torch.tensor([[0.0, 0]] * 4 + [[1.0, 0]] * 4)[None, None],
        evidence=torch.ones(1, 1, 8),
        features=torch.zeros(1, NUM_FEATURES, 1, 2, 4),
    )
    weights = torch.tensor([[[1.0] * 4 + [3.0] * 4]]) / 16
    found = to_motion(SimilarityFit(cells).solve(weights))
    torch.testing.assert_close(found, torch.tensor([[[0.75, 0, 0, 0]]]))


def test_gradients_of_the_least_squares_match_finite_differences() -> None:
    cells = cells_of(MOTION.double(), side=2, noise=0.1)
    weights = torch.rand(1, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w: to_motion(SimilarityFit(cells).solve(w.softmax(dim=-1))), weights
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 0.4])
def test_an_exact_similarity_is_recovered_in_spite_of_outliers(share: float) -> None:
    cells, outlier = with_an_object(cells_of(MOTION), share)
    found = estimate_motion(cells, None, steps=8, learned_steps=3)
    torch.testing.assert_close(found.motion, MOTION, atol=1e-3, rtol=0)
    weights = found.log_weights[:, -1].softmax(dim=-1)
    assert weights[..., outlier].sum() < 0.01 * MOTION.shape[1]


def test_cells_without_evidence_have_no_say() -> None:
    cells, outlier = with_an_object(cells_of(MOTION), 0.6)  # more than half, but flat
    evidence = cells.evidence.clone()
    evidence[..., outlier] = 2e-3
    cells = dataclasses.replace(cells, evidence=evidence)
    found = estimate_motion(cells, None, steps=8, learned_steps=1)
    torch.testing.assert_close(found.motion, MOTION, atol=2e-3, rtol=0)


def test_at_initialization_the_network_changes_nothing() -> None:
    cells, _ = with_an_object(cells_of(MOTION, noise=0.003))
    by_hand = estimate_motion(cells, None, steps=5, learned_steps=2)
    found = estimate_motion(cells, Reweighter(4), steps=5, learned_steps=2)
    assert found.steps.shape == (1, 2, 3, 4)
    assert torch.equal(found.steps, by_hand.steps)
    assert torch.equal(found.log_weights, by_hand.log_weights)


def test_the_last_steps_are_the_networks_and_no_others() -> None:
    cells, _ = with_an_object(cells_of(MOTION, noise=0.003))
    by_hand = estimate_motion(cells, None, steps=5, learned_steps=5)
    # What the network changes is added to the hand-made weight at the estimate it starts from.
    reweighter = taught()
    learned = estimate_motion(cells, reweighter, steps=5, learned_steps=1)
    residual = cells.points + cells.displacement
    residual = residual - apply_similarity(by_hand.steps[:, -2], cells.points)
    change = reweighter(cells, residual, 0.01, 4 / 5)
    assert change.abs().max() > 0.01
    torch.testing.assert_close(learned.log_weights[:, 0], by_hand.log_weights[:, -1] + change)


def test_the_network_can_speak_for_a_cell_that_the_formula_drops() -> None:
    cells, outlier = with_an_object(cells_of(MOTION), 0.25)
    reweighter = Reweighter(4)

    def believes(*_: object) -> Tensor:
        return torch.where(outlier, 6.0, -6.0).expand(1, 3, -1)

    reweighter.forward = believes  # type: ignore[method-assign]
    found = estimate_motion(cells, reweighter, steps=8, learned_steps=3)
    object_motion = MOTION + torch.tensor([0.4, -0.3, 0, 0])
    torch.testing.assert_close(found.motion, object_motion, atol=0.02, rtol=0)


def test_changes_of_the_log_weight_are_bounded() -> None:
    cells = cells_of(MOTION)
    reweighter = taught()
    torch.nn.init.normal_(reweighter.change.weight, std=1e4)
    change = reweighter(cells, torch.randn(1, 3, 256, 2), 0.01, 0.5)
    assert change.shape == (1, 3, 256)
    assert 5.9 < change.abs().max() <= 6
    estimate = estimate_motion(cells, reweighter, steps=8, learned_steps=8)
    assert torch.isfinite(estimate.motion).all()


def test_gradients_reach_every_parameter_of_the_network() -> None:
    cells, _ = with_an_object(cells_of(MOTION, noise=0.01))
    reweighter = taught()
    estimate = estimate_motion(cells, reweighter, steps=4, learned_steps=2)
    (estimate.motion * torch.randn(1, 3, 4)).sum().backward()
    silent = [
        name
        for name, parameter in reweighter.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []


def test_from_the_first_step_the_last_layer_learns() -> None:
    cells, _ = with_an_object(cells_of(MOTION, noise=0.01))
    reweighter = Reweighter(4)
    estimate_motion(cells, reweighter, steps=4, learned_steps=2).motion.sum().backward()
    assert reweighter.change.weight.grad is not None
    assert reweighter.change.weight.grad.any()
