from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepstab import geometry, pixels, trajectory
from deepstab.models.cells import NUM_FEATURES, Cells
from deepstab.models.motion import estimate_motion
from deepstab.training.losses import correction_size, path_smoothness, theta_smoothness

numbers = st.floats(-0.5, 0.5, allow_nan=False)


@st.composite
def thetas(draw: st.DrawFn) -> Tensor:
    """Invertible affine maps around the identity, far from symmetric."""
    values = [draw(numbers) for _ in range(6)]
    theta = torch.tensor(values, dtype=torch.float64).reshape(2, 3) * 0.8
    theta[0, 0] += 1
    theta[1, 1] += 1
    return theta


@st.composite
def motions(draw: st.DrawFn) -> Tensor:
    """(1, time, 4) inter-frame similarities of up to 10 frames."""
    rows = draw(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=3, max_size=10))
    return torch.tensor(rows, dtype=torch.float64)[None]


@given(thetas())
def test_inverse_after_map_is_identity(theta: Tensor) -> None:
    identity = geometry.compose(geometry.invert(theta), theta)
    torch.testing.assert_close(identity, torch.eye(2, 3, dtype=torch.float64), atol=1e-8, rtol=0)


@given(thetas(), thetas())
def test_composition_is_application_in_turn(outer: Tensor, inner: Tensor) -> None:
    points = torch.tensor([[0.3, -0.7], [1.0, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(
        geometry.apply(geometry.compose(outer, inner), points),
        geometry.apply(outer, geometry.apply(inner, points)),
    )


@given(thetas(), st.integers(2, 2000), st.integers(2, 2000))
def test_pixels_and_back_is_identity(theta: Tensor, width: int, height: int) -> None:
    there = pixels.theta_to_pixels(theta.numpy(), width=width, height=height)
    back = pixels.pixels_to_theta(there, width=width, height=height)
    torch.testing.assert_close(torch.from_numpy(back), theta, atol=1e-9, rtol=0)


@given(motions())
def test_path_is_the_composition_of_motions(motion: Tensor) -> None:
    # Independent of `accumulate`: matrices multiplied one after the other.
    matrix = torch.eye(3, dtype=torch.float64)
    path = trajectory.accumulate(motion)[0]
    for step, row in zip(motion[0][1:], path[1:], strict=True):
        matrix = matrix @ _similarity_matrix(step)
        torch.testing.assert_close(_similarity_matrix(row), matrix)


@given(motions(), st.integers(0, 2**31))
def test_correction_takes_the_residual_out_of_the_path(motion: Tensor, seed: int) -> None:
    path = trajectory.accumulate(motion)
    generator = torch.Generator().manual_seed(seed)
    residual = 0.2 * torch.randn(path.shape, generator=generator, dtype=torch.float64)
    corrected = trajectory.correction(path, residual)
    for before, change, wanted in zip(path[0], corrected[0], (path - residual)[0], strict=True):
        torch.testing.assert_close(
            _similarity_matrix(before) @ _similarity_matrix(change), _similarity_matrix(wanted)
        )


@settings(max_examples=25)
@given(st.integers(4, 60), st.floats(0.5, 20))
def test_smoothing_keeps_straight_lines_to_the_ends(length: int, sigma: float) -> None:
    times = torch.arange(length, dtype=torch.float32) / length
    line = 3 * times - 1
    torch.testing.assert_close(
        trajectory.smoothing_matrix(length, sigma) @ line, line, atol=2e-3, rtol=0
    )


@settings(max_examples=25)
@given(motions(), st.integers(0, 2**31))
def test_least_squares_recovers_a_similarity_in_spite_of_outliers(
    motion: Tensor, seed: int
) -> None:
    motion = 0.2 * motion
    points = (geometry.cell_centers(16, 16).double() * torch.tensor([1.3, 0.77])).flatten(0, 1)
    exact = torch.stack([points @ _similarity_matrix(m)[:2, :2].T + m[:2] for m in motion[0]])
    displacement = (exact - points)[None]
    chosen = torch.randperm(256, generator=torch.Generator().manual_seed(seed))[:64]
    displacement[:, :, chosen] += torch.tensor([0.4, -0.3], dtype=torch.float64)
    cells = Cells(
        points=points[None, None],
        displacement=displacement,
        evidence=torch.ones(displacement.shape[:3], dtype=torch.float64),
        features=torch.zeros(1, NUM_FEATURES, displacement.shape[1], 16, 16),
    )
    found = estimate_motion(cells, None, steps=6, learned_steps=1)
    torch.testing.assert_close(found.motion, motion, atol=1e-3, rtol=0)
    weights = found.log_weights[:, -1].exp()
    assert weights[..., chosen].max() < 0.01 < weights.max()


def test_gradients_of_the_geometry_match_finite_differences() -> None:
    torch.manual_seed(0)
    theta = torch.eye(2, 3, dtype=torch.float64) + 0.1 * torch.randn(1, 5, 2, 3).double()
    theta.requires_grad_()
    frames = torch.rand(1, 2, 5, 7, 9, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: geometry.warp(frames, t)[0], theta)
    assert torch.autograd.gradcheck(geometry.invert, theta)
    assert torch.autograd.gradcheck(theta_smoothness, theta)
    aspect = torch.tensor([1.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: correction_size(t, aspect), theta)
    motion = (0.1 * torch.randn(1, 5, 4)).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: geometry.similarity_to_theta(
            trajectory.correction(trajectory.accumulate(m), 0.3 * m), aspect
        ),
        motion,
    )


def test_gradient_of_the_path_loss_matches_finite_differences() -> None:
    torch.manual_seed(1)
    clip = {
        "unstable": torch.rand(1, 3, 5, 8, 8, dtype=torch.float64),
        "stable": torch.rand(1, 3, 5, 8, 8, dtype=torch.float64),
        "flow": 0.3 * torch.randn(1, 2, 5, 8, 8, dtype=torch.float64),
        "aspect": torch.tensor([1.6], dtype=torch.float64),
    }
    torch.set_default_dtype(torch.float64)
    try:
        theta = torch.eye(2, 3) + 0.03 * torch.randn(1, 5, 2, 3)
        theta.requires_grad_()
        assert torch.autograd.gradcheck(lambda t: path_smoothness(t, clip), theta, atol=1e-4)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("aspect", [16 / 9, 9 / 16, 1.0])
def test_a_rotation_is_a_rotation_of_the_video_as_filmed(aspect: float) -> None:
    # In pixels of a frame of that aspect the linear part must be orthogonal.
    angle = 0.3
    similarity = torch.tensor([[[0.0, 0.0, angle, 0.0]]])
    theta = geometry.similarity_to_theta(similarity, torch.tensor([aspect]))[0, 0]
    size = {"width": round(900 * aspect), "height": 900}
    matrix = pixels.theta_to_pixels(theta.double().numpy(), **size)[:, :2]
    expected = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    torch.testing.assert_close(
        torch.from_numpy(matrix), torch.tensor(expected).double(), atol=1e-3, rtol=0
    )


def _similarity_matrix(row: Tensor) -> Tensor:
    x, y, angle, log_scale = (float(value) for value in row)
    cos, sin = math.exp(log_scale) * math.cos(angle), math.exp(log_scale) * math.sin(angle)
    return torch.tensor([[cos, -sin, x], [sin, cos, y], [0, 0, 1]], dtype=torch.float64)
