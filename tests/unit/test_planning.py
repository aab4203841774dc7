from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepstab import geometry
from deepstab.planning import (
    Plan,
    corrections,
    path_px,
    plan_corrections,
    smooth,
    stabilized_motion,
    visible_part,
)
from deepstab.trajectory import smoothing_matrix

ASPECT = 16 / 9


def shaky_motion(num_frames: int, *, amplitude: float, seed: int = 0) -> NDArray[np.float64]:
    """Motions of a white path shake: x, y in isotropic units, roll and zoom smaller."""
    path = np.random.default_rng(seed).normal(0, amplitude, (num_frames, 4)) * [1, 1, 0.3, 0.1]
    return np.diff(path, axis=0, prepend=0)


def jitter(motion: NDArray[np.float64]) -> float:
    return float(np.sqrt((np.diff(motion[1:, :2], axis=0) ** 2).mean()))


def test_smoothing_agrees_with_the_matrix_and_keeps_lines() -> None:
    signal = np.random.default_rng(0).normal(size=(40, 2))
    expected = smoothing_matrix(40, 5.0).double().numpy() @ signal
    # Truncated at three sigma.
    np.testing.assert_allclose(smooth(signal, np.full(40, 5.0)), expected, atol=0.02)
    line = np.arange(40.0)[:, None] * [1, -2]
    np.testing.assert_allclose(smooth(line, np.linspace(0.5, 9, 40)), line, atol=1e-6)


def test_long_paths_are_smoothed_in_chunks_without_seams() -> None:
    signal = np.cumsum(np.random.default_rng(1).normal(size=(9000, 1)), axis=0)
    whole = smooth(signal, np.full(9000, 6.0))
    part = smooth(signal[4000:4200], np.full(200, 6.0))
    np.testing.assert_allclose(whole[4030:4170], part[30:170], atol=1e-9)


def test_corrections_take_the_shake_out() -> None:
    motion = shaky_motion(200, amplitude=0.03)
    turn, shift = corrections(motion, np.full(200, 12.0))
    left = stabilized_motion(motion, Plan(turn, shift, 1.0, np.full(200, 12.0)))
    assert jitter(left) < 0.02 * jitter(motion)


def test_shake_is_taken_out_of_a_turning_camera_too() -> None:
    motion = shaky_motion(200, amplitude=0.03)
    motion[:, 2] += 0.02  # a steady roll of more than a full half turn
    turn, shift = corrections(motion, np.full(200, 12.0))
    left = stabilized_motion(motion, Plan(turn, shift, 1.0, np.full(200, 12.0)))
    assert jitter(left) < 0.05 * jitter(motion)


@pytest.mark.parametrize("least_visible", [0.9, 0.95, 0.99])
def test_what_stays_visible_is_kept(least_visible: float) -> None:
    motion = shaky_motion(150, amplitude=0.05)
    motion[70:90, 0] += 0.15  # a fast pan
    plan = plan_corrections(motion, aspect=ASPECT, sigma=20, least_visible=least_visible, cuts=[])
    assert plan.zoom >= least_visible - 1e-9
    thetas = torch.from_numpy(plan.thetas(ASPECT))
    corners = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]], dtype=torch.float64)
    assert float(geometry.apply(thetas, corners).abs().max()) <= 1 + 1e-9


def test_a_steady_pan_needs_no_crop() -> None:
    motion = np.zeros((100, 4))
    motion[:, 0] = 0.05
    plan = plan_corrections(motion, aspect=ASPECT, sigma=20, least_visible=0.8, cuts=[])
    assert plan.zoom == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(
        plan.thetas(ASPECT), np.broadcast_to(np.eye(2, 3), (100, 2, 3)), atol=1e-9
    )


def test_scenes_do_not_touch_each_other() -> None:
    first, second = shaky_motion(80, amplitude=0.02), shaky_motion(60, amplitude=0.02, seed=5)
    both = np.concatenate([first, second])
    both[80] = 3.0  # what the estimate says across a cut is nonsense
    settings = {"aspect": ASPECT, "sigma": 10.0, "least_visible": 0.7}
    plan = plan_corrections(both, cuts=[80], **settings)
    alone = plan_corrections(first, cuts=[], **settings)
    np.testing.assert_allclose(plan.shift[:80], alone.shift)
    assert np.abs(path_px(both, cuts=[80], aspect=ASPECT)).max() < 200


def test_strength_zero_and_single_frames_change_nothing() -> None:
    motion = shaky_motion(30, amplitude=0.05)
    for moves, sigma in ((motion, 0.0), (motion[:1], 20.0), (motion[:2], 20.0)):
        plan = plan_corrections(moves, aspect=ASPECT, sigma=sigma, least_visible=0.8, cuts=[])
        np.testing.assert_allclose(np.abs(plan.shift), 0, atol=1e-9)


def test_visible_part_by_hand() -> None:
    # A shift of a tenth of half the width leaves nine tenths on that side.
    half_width = np.sqrt(ASPECT)
    visible = visible_part(np.array([1 + 0j]), np.array([0.1 * half_width + 0j]), ASPECT)
    assert visible[0] == pytest.approx(0.9)
    # After a quarter turn the long side must fit the short one.
    visible = visible_part(np.array([1j]), np.array([0j]), ASPECT)
    assert visible[0] == pytest.approx(9 / 16)
