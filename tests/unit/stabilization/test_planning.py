from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepstab import geometry
from deepstab.stabilization.planning import (
    Plan,
    choose_plan,
    path_px,
    plan_corrections,
    stabilized_motion,
    visible_part,
)

ASPECT = 16 / 9


def steady(num_frames: int) -> NDArray[np.float64]:
    """No wobble, (num_frames, 6, 2)."""
    return np.zeros((num_frames, 6, 2))


def shaky_motion(num_frames: int, *, amplitude: float, seed: int = 0) -> NDArray[np.float64]:
    """Motions of a white path shake: x, y in isotropic units, roll and zoom smaller."""
    path = np.random.default_rng(seed).normal(0, amplitude, (num_frames, 4)) * [1, 1, 0.3, 0.1]
    return np.diff(path, axis=0, prepend=0)


def jitter(motion: NDArray[np.float64]) -> float:
    return float(np.sqrt((np.diff(motion[1:, :2], axis=0) ** 2).mean()))


def cost(motion: NDArray[np.float64], plan: Plan) -> float:
    """What `choose_plan` makes least, worked out from its definition."""
    path = np.cumsum(stabilized_motion(motion, plan)[1:, :2], axis=0) * 320 / np.sqrt(ASPECT)
    jitter_px = np.sqrt((np.diff(path, n=2, axis=0) ** 2).sum(axis=1).mean())
    return float(np.log(np.hypot(jitter_px, 0.1)) + 11 * (1 - plan.zoom))


def test_shake_is_taken_out_of_a_turning_camera_too() -> None:
    motion = shaky_motion(200, amplitude=0.01)
    motion[:, 2] += 0.02  # a steady roll of more than a full half turn
    plan = plan_corrections(
        motion, steady(len(motion)), aspect=ASPECT, period=60, least_visible=0.5, cuts=[]
    )
    assert jitter(stabilized_motion(motion, plan)) < 0.05 * jitter(motion)


@pytest.mark.parametrize("least_visible", [0.9, 0.95, 0.99])
def test_what_stays_visible_is_kept(least_visible: float) -> None:
    motion = shaky_motion(150, amplitude=0.05)
    motion[70:90, 0] += 0.15  # a fast pan
    plan = plan_corrections(
        motion, steady(len(motion)), aspect=ASPECT, period=60, least_visible=least_visible, cuts=[]
    )
    assert plan.zoom >= least_visible - 1e-9
    thetas = torch.from_numpy(plan.thetas(ASPECT))
    corners = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]], dtype=torch.float64)
    assert float(geometry.apply(thetas, corners).abs().max()) <= 1 + 1e-9


def test_a_steady_pan_needs_no_crop() -> None:
    motion = np.zeros((100, 4))
    motion[:, 0] = 0.05
    plan = plan_corrections(
        motion, steady(len(motion)), aspect=ASPECT, period=60, least_visible=0.8, cuts=[]
    )
    assert plan.zoom == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(
        plan.thetas(ASPECT), np.broadcast_to(np.eye(2, 3), (100, 2, 3)), atol=1e-9
    )


@pytest.mark.parametrize("amplitude", [0.002, 0.01, 0.05])
def test_a_chosen_plan_costs_less_than_those_of_other_crops(amplitude: float) -> None:
    motion = shaky_motion(100, amplitude=amplitude)
    settings = {"aspect": ASPECT, "period": 60.0}
    chosen = choose_plan(motion, steady(100), most_cropped=0.2, cuts=[], **settings)
    for crop in (0.015, 0.045, 0.085, 0.125, 0.2):
        other = plan_corrections(
            motion, steady(len(motion)), least_visible=1 - crop, cuts=[], **settings
        )
        assert cost(motion, chosen) < cost(motion, other) + 0.02


def test_more_shake_takes_more_crop_and_none_takes_none() -> None:
    settings = {"aspect": ASPECT, "period": 60.0, "most_cropped": 0.2, "cuts": []}
    zooms = [
        choose_plan(shaky_motion(100, amplitude=amplitude), steady(100), **settings).zoom
        for amplitude in (0.0, 0.002, 0.01, 0.05)
    ]
    assert zooms[0] == pytest.approx(1, abs=1e-9)
    assert zooms == sorted(zooms, reverse=True)
    assert 0.8 - 1e-9 <= zooms[-1] < 0.9 < zooms[1] < 1


def test_scenes_do_not_touch_each_other() -> None:
    first, second = shaky_motion(80, amplitude=0.02), shaky_motion(60, amplitude=0.02, seed=5)
    both = np.concatenate([first, second])
    both[80] = 3.0  # what the estimate says across a cut is nonsense
    settings = {"aspect": ASPECT, "period": 40.0, "least_visible": 0.7}
    plan = plan_corrections(both, steady(140), cuts=[80], **settings)
    alone = plan_corrections(first, steady(80), cuts=[], **settings)
    np.testing.assert_allclose(plan.shift[:80], alone.shift)
    assert np.abs(path_px(both, cuts=[80], aspect=ASPECT)).max() < 200


def test_strength_zero_and_single_frames_change_nothing() -> None:
    motion = shaky_motion(30, amplitude=0.05)
    for moves, period in ((motion, 0.0), (motion[:1], 20.0), (motion[:2], 20.0)):
        plan = plan_corrections(
            moves, steady(len(moves)), aspect=ASPECT, period=period, least_visible=0.8, cuts=[]
        )
        np.testing.assert_allclose(np.abs(plan.shift), 0, atol=1e-9)


def test_visible_part_by_hand() -> None:
    # A shift of a tenth of half the width leaves nine tenths on that side.
    half_width = np.sqrt(ASPECT)
    visible = visible_part(np.array([1 + 0j]), np.array([0.1 * half_width + 0j]), steady(1), ASPECT)
    assert visible[0] == pytest.approx(0.9)
    # After a quarter turn the long side must fit the short one.
    visible = visible_part(np.array([1j]), np.array([0j]), steady(1), ASPECT)
    assert visible[0] == pytest.approx(9 / 16)


def test_what_a_wobble_bends_is_not_shown_by_hand() -> None:
    # The right border of a square comes from .1 further right: nine tenths are filled there.
    wobble = steady(1)
    wobble[0, 0, 0] = 0.1
    visible = visible_part(np.array([1 + 0j]), np.array([0j]), wobble, 1.0)
    assert visible[0] == pytest.approx(0.9)
    # x -> x + .1 x^2: at x = z it reaches 1 where .1 z^2 + z = 1.
    wobble = steady(1)
    wobble[0, 3, 0] = 0.1
    visible = visible_part(np.array([1 + 0j]), np.array([0j]), wobble, 1.0)
    assert visible[0] == pytest.approx((-1 + np.sqrt(1.4)) / 0.2, abs=1e-3)


def test_the_path_gives_way_to_a_wobble() -> None:
    # A pan that the crop holds back is held back sooner where the wobble takes of the room.
    motion, wobble = np.zeros((60, 4)), steady(60)
    motion[30, 0] = 1.0
    settings = {"aspect": ASPECT, "period": 60.0, "least_visible": 0.9, "cuts": []}
    straight = plan_corrections(motion, wobble, **settings)
    most = int(np.argmax(np.abs(straight.shift.real)))
    wobble[most, 0, 0] = 0.02 * np.sqrt(ASPECT) * np.sign(straight.shift[most].real)
    bent = plan_corrections(motion, wobble, **settings)
    room = 0.1 * np.sqrt(ASPECT)
    np.testing.assert_allclose(np.abs(straight.shift[most].real), room, rtol=1e-3)
    np.testing.assert_allclose(np.abs(bent.shift[most].real), 0.8 * room, rtol=1e-3)
    assert bent.zoom == pytest.approx(0.9, abs=1e-6)
