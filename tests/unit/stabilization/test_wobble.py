"""Bent thetas against direct evaluation, and which wobble is taken out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepstab.models.wobble import field_terms
from deepstab.stabilization.wobble import (
    apply_bent,
    bend,
    displacement,
    held_back,
    pixel_map,
    quick_part,
    warp_bent,
)

Floats = NDArray[np.float64]

ASPECT = 16 / 9
SCALE = np.array([4 / 3, 3 / 4])  # of that aspect: normalized to isotropic
RNG = np.random.default_rng(0)
THETAS = np.eye(2, 3) + 0.1 * RNG.normal(size=(3, 2, 3))
WOBBLE = 0.02 * RNG.normal(size=(3, 6, 2))
POINTS = np.array([[0.0, 0.0], [1.0, -1.0], [0.3, 0.8], [-0.9, 0.2]])


def written_out(field: Floats, points: Floats) -> Floats:
    """A quadratic field at points (x, y), isotropic."""
    one, by_x, by_y, by_xx, by_xy, by_yy = field
    rows = [
        one + by_x * x + by_y * y + by_xx * x * x + by_xy * x * y + by_yy * y * y for x, y in points
    ]
    return np.array(rows)


def test_a_bent_theta_goes_on_through_the_wobble() -> None:
    found = apply_bent(bend(THETAS, WOBBLE, ASPECT), POINTS)
    for theta, field, mapped in zip(THETAS, WOBBLE, found, strict=True):
        straight = POINTS @ theta[:, :2].T + theta[:, 2]
        expected = straight + written_out(field, straight * SCALE) / SCALE
        np.testing.assert_allclose(mapped, expected, atol=1e-12)


def test_without_wobble_it_stays_the_theta() -> None:
    bent = bend(THETAS, 0 * WOBBLE, ASPECT)
    np.testing.assert_allclose(bent[..., :3], THETAS, atol=1e-15)
    assert not bent[..., 3:].any()


def test_columns_by_hand() -> None:
    # x, y, 1, x^2, xy, y^2.
    bent = np.array([[1.0, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 1]])
    assert apply_bent(bent, np.array([[2.0, -3.0]])).tolist() == [[2 - 6 + 3 + 16 - 30 + 54, 9]]


def test_pixel_map_is_where_remap_looks() -> None:
    width, height = 40, 30
    bent = bend(THETAS[:1], WOBBLE[:1], ASPECT)[0]
    by_row, powers = pixel_map(bent, width=width, height=height)
    x, y = by_row @ powers
    assert x.shape == y.shape == (height, width)
    for row, column in ((0, 0), (29, 39), (7, 25)):
        point = np.array([[(2 * column + 1) / width - 1, (2 * row + 1) / height - 1]])
        ((to_x, to_y),) = (apply_bent(bent, point) + 1) * [width, height] / 2 - 0.5
        assert x[row, column] == pytest.approx(to_x, abs=1e-4)
        assert y[row, column] == pytest.approx(to_y, abs=1e-4)


def test_remap_by_it_is_the_affine_warp_where_nothing_bends() -> None:
    # Seven px to the left and two up, in a frame of 40x30.
    bent = np.zeros((2, 6))
    bent[:, :3] = [[1, 0, 14 / 40], [0, 1, 4 / 30]]
    image = RNG.integers(0, 256, (30, 40)).astype(np.uint8)
    for moved in warp_bent([image, image], bent):
        np.testing.assert_array_equal(moved[:-2, :-7], image[2:, 7:])


def test_strips_of_a_warp_fit_together() -> None:
    frame = cv2.GaussianBlur(RNG.integers(0, 256, (120, 900, 3)).astype(np.uint8), (0, 0), 3)
    bent = bend(THETAS[:1], WOBBLE[:1], 900 / 120)[0]
    by_row, powers = pixel_map(bent, width=900, height=120)
    whole = cv2.remap(frame, *(by_row @ powers), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    (warped,) = warp_bent([frame], bent)
    np.testing.assert_array_equal(warped, whole)


def test_displacement_is_the_field_at_the_points() -> None:
    points = RNG.uniform(-1, 1, (len(WOBBLE), 7, 2))
    terms = field_terms(torch.from_numpy(points)).numpy()
    expected = np.einsum("tpk,tkd->tpd", terms, WOBBLE)
    found = displacement(WOBBLE, points[..., 0] + 1j * points[..., 1])
    np.testing.assert_allclose(np.stack([found.real, found.imag], axis=-1), expected)


def test_a_wobble_is_held_back_where_it_leaves_its_room() -> None:
    # Of a square's half side, the frames are shifted by 0, .05, .2 and -.4; there is room for .1.
    wobble = np.zeros((4, 6, 2))
    wobble[:, 0, 0] = [0, 0.05, 0.2, -0.4]
    np.testing.assert_allclose(held_back(wobble, 1.0, 0.1)[:, 0, 0], [0, 0.05, 0.1, -0.1])
    # Half the height of a frame twice as wide is shorter: 1 / sqrt(2).
    tall = np.zeros((1, 6, 2))
    tall[0, 0, 1] = 0.2
    np.testing.assert_allclose(held_back(tall, 2.0, 0.1)[0, 0, 1], 0.1 / np.sqrt(2))


def test_a_frame_is_not_stretched_by_more_than_a_percent() -> None:
    # x grows by .05 in every other frame: a stretch of about as much, to and fro.
    wobble = np.zeros((40, 6, 2))
    wobble[:, 1, 0] = 0.05 * (-1.0) ** np.arange(40)
    quick = quick_part(wobble, sigma=4, cuts=[])
    np.testing.assert_allclose(np.abs(quick[8:-8, 1, 0]), 0.01)
    # A quarter of a percent is let be.
    little = quick_part(wobble / 20, sigma=4, cuts=[])[8:-8, 1, 0]
    np.testing.assert_allclose(np.ptp(little), 0.0025, atol=2e-4)


def wobble_of(path: Floats) -> Floats:
    """The wobble (num_frames, 6, 2) whose accumulated xy term in x follows a path."""
    field = np.zeros((len(path), 6, 2))
    field[1:, 4, 0] = -np.diff(path)
    return field


def test_a_quick_wobble_is_taken_out_and_a_slow_one_left_alone() -> None:
    times = np.arange(120)
    quick, slow = np.sin(2 * np.pi * times / 5), np.sin(2 * np.pi * times / 90)
    found = quick_part(wobble_of(quick), sigma=4, cuts=[])[20:-20, 4, 0]
    np.testing.assert_allclose(found, quick[20:-20], atol=0.01)
    # A Gaussian keeps exp(-(2 pi sigma / period)^2 / 2) of it: 96 %.
    found = quick_part(wobble_of(slow), sigma=4, cuts=[])[20:-20, 4, 0]
    assert np.abs(found).max() < 0.05


@pytest.mark.parametrize("num_frames", [3, 5, 12, 60])
@pytest.mark.parametrize("sigma", [4.0, 2.6])
def test_a_steady_wobble_is_left_alone_however_short_the_scene(
    num_frames: int, sigma: float
) -> None:
    found = quick_part(wobble_of(0.1 * np.arange(num_frames)), sigma=sigma, cuts=[])
    np.testing.assert_allclose(found, 0, atol=1e-9)


def test_scenes_are_apart() -> None:
    times = np.arange(40)
    one, other = np.sin(times), np.cos(1.3 * times)
    first, second = wobble_of(one), wobble_of(other)
    second[0] = 7.0  # the wobble across the cut is none
    both = quick_part(np.concatenate([first, second]), sigma=4, cuts=[40])
    np.testing.assert_allclose(both[:40], quick_part(first, sigma=4, cuts=[]))
    np.testing.assert_allclose(both[40:], quick_part(second, sigma=4, cuts=[]))
    assert np.abs(both).max() < 3


def test_scenes_of_a_frame_or_two_have_none() -> None:
    found = quick_part(np.ones((5, 6, 2)), sigma=4, cuts=[1, 3])
    assert found.shape == (5, 6, 2)
    assert not found.any()
