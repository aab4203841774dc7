from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from deepstab import geometry, pixels
from deepstab.data.shake import (
    Shake,
    ShakeSize,
    Similarity,
    draw_shake,
    own_between,
    room_for,
    see,
    standing_still,
    still_view,
    true_correction,
    true_motion,
    waves,
)
from deepstab.image import Image

SIZE = (160, 90)
SCALE = 0.8


@pytest.fixture
def clean() -> Image:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def shaken(readout: float = 0.0, num_frames: int = 12) -> Shake:
    return draw_shake(
        np.arange(num_frames) / 30,
        frame_rate=30.0,
        width=SIZE[0],
        size=ShakeSize(amplitude=0.02, readout=readout, scale=SCALE),
        rng=np.random.default_rng(4),
    )


def test_waves_have_unit_rms_and_stay_in_their_band() -> None:
    signal = waves(np.arange(3000) / 30, (1.0, 12.0), np.random.default_rng(5))
    assert np.std(signal) == pytest.approx(1, rel=0.1)
    spectrum = np.abs(np.fft.rfft(signal)) ** 2
    frequencies = np.fft.rfftfreq(3000, 1 / 30)
    inside = spectrum[(frequencies > 0.9) & (frequencies < 12.1)].sum()
    assert inside > 0.98 * spectrum[1:].sum()


def test_the_shake_has_the_amplitude_that_was_asked_for() -> None:
    shift_px = shaken(num_frames=3000).middle.shift / SCALE
    assert np.std(shift_px.real) == pytest.approx(0.02 * SIZE[0], rel=0.1)
    assert np.std(shift_px.imag) == pytest.approx(0.02 * SIZE[0], rel=0.1)


def test_matrices_act_from_the_centers_as_opencv_counts_pixels() -> None:
    # A quarter turn, doubled, moved by (3, -1): worked by hand for the output's pixel (7, 4),
    # which lies (2, 1.5) from the center of an 11 x 6 frame.
    similarity = Similarity(np.array(2j), np.array(3 - 1j))
    matrix = similarity.matrix((11, 6), (21, 9))
    # i * 2 * (2 + 1.5i) + 3 - i = 0 + 3i; the center of the source is (10, 4).
    np.testing.assert_allclose(matrix @ [7, 4, 1], [10, 7], atol=1e-12)


def test_a_similarity_after_its_inverse_is_the_identity() -> None:
    views = shaken().middle
    for product in (views @ views.inverse(), views.inverse() @ views):
        np.testing.assert_allclose(product.factor, 1, atol=1e-12)
        np.testing.assert_allclose(product.shift, 0, atol=1e-10)


def test_the_true_motion_carries_each_frame_to_the_one_before(clean: Image) -> None:
    # A clean clip with a motion of its own, rendered by OpenCV from pixel matrices alone.
    pan = np.array([[1, 0.01, 1.5], [-0.01, 1, -0.7]])
    own = standing_still(12)
    center = complex((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)
    turn = complex(pan[0, 0], pan[1, 0])
    own.factor[1:] = turn
    own.shift[1:] = turn * center + complex(pan[0, 2], pan[1, 2]) - center
    frames = [clean]
    for _ in range(3):
        frames.append(
            cv2.warpAffine(
                frames[-1], pan, SIZE, flags=cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
            )
        )
    shake = shaken()
    motion = true_motion(shake, own, SIZE)
    assert motion.dtype == np.float32
    assert not motion[0].any()
    aspect = torch.tensor([SIZE[0] / SIZE[1]], dtype=torch.float64)
    thetas = geometry.similarity_to_theta(torch.from_numpy(motion[None]).double(), aspect)[0]
    inner = (slice(20, -20), slice(30, -30))
    for t in (1, 2, 3):
        now, before = (see(frames[i], shake.views[i], SIZE) for i in (t, t - 1))
        matrix = pixels.theta_to_pixels(thetas[t].numpy(), width=SIZE[0], height=SIZE[1])
        carried = cv2.warpAffine(before, matrix, SIZE, flags=cv2.WARP_INVERSE_MAP | 1)
        wrong = cv2.warpAffine(before, matrix, SIZE, flags=1)
        error = np.abs(carried - now)[inner].mean()
        assert error < 3
        assert error < 0.3 * np.abs(wrong - now)[inner].mean()


def test_the_motion_of_a_camera_that_only_shakes_is_that_of_its_corrections() -> None:
    shake = shaken()
    motion = torch.from_numpy(true_motion(shake, standing_still(12), SIZE)[None]).double()
    correction = torch.from_numpy(true_correction(shake, SIZE, SCALE))
    aspect = torch.tensor([SIZE[0] / SIZE[1]], dtype=torch.float64)
    expected = geometry.compose(correction[:-1], geometry.invert(correction[1:]))
    found = geometry.similarity_to_theta(motion, aspect)[0, 1:]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_correction_shows_what_the_unshaken_view_shows(clean: Image) -> None:
    shake = shaken()
    steady = see(clean, still_view(SCALE), SIZE)
    matrices = pixels.theta_to_pixels(
        true_correction(shake, SIZE, SCALE), width=SIZE[0], height=SIZE[1]
    )
    inner = (slice(20, -20), slice(30, -30))
    for t in (2, 7):
        seen = see(clean, shake.views[t], SIZE)
        corrected = cv2.warpAffine(seen, matrices[t], SIZE, flags=cv2.WARP_INVERSE_MAP | 1)
        assert np.abs(corrected - steady)[inner].mean() < 3
        assert np.abs(seen - steady)[inner].mean() > 6


def test_a_rolling_shutter_reads_every_row_at_its_own_moment(clean: Image) -> None:
    shake = shaken(readout=0.8)
    views = shake.views[5]
    rolled = see(clean, views, SIZE)
    for row, moment in ((0, 0), (SIZE[1] - 1, len(views) - 1)):
        at_once = see(clean, views[moment : moment + 1], SIZE)
        np.testing.assert_allclose(rolled[row], at_once[row], atol=2)
        assert np.abs(rolled - at_once).mean() > 2
    # The row in the middle is what the truth is told for.
    middle = see(clean, shake.middle[5:6], SIZE)
    np.testing.assert_allclose(rolled[44:46], middle[44:46], atol=4)


def test_a_shutter_that_reads_at_once_sees_what_one_moment_of_a_rolling_one_sees() -> None:
    np.testing.assert_allclose(
        shaken(readout=0.8).middle.shift, shaken(readout=0.0).middle.shift, atol=1e-9
    )


def test_repeated_dropped_and_unknown_frames_have_the_motion_between_what_is_shown() -> None:
    own = Similarity(
        np.array([1, 1j, 2, 1, np.nan], complex), np.array([0, 1, 10j, 5, np.nan], complex)
    )
    between = own_between(own, np.array([0, 1, 1, 3, 4, 4]))
    # From frame 3 to frame 1: z + 5, then 2 z + 10i.
    np.testing.assert_array_equal(between.factor, [1, 1j, 1, 2, np.nan, 1])
    np.testing.assert_array_equal(between.shift[:4], [0, 1, 0, 10 + 10j])
    motion = true_motion(shaken(num_frames=6), between, SIZE)
    np.testing.assert_array_equal(np.isnan(motion).all(axis=1), [0, 0, 0, 0, 1, 0])


def test_the_shake_hardly_ever_leaves_the_room_it_has() -> None:
    amplitude = 0.03
    outside = 0
    for seed in range(20):
        shake = draw_shake(
            np.arange(96) / 30,
            frame_rate=30.0,
            width=SIZE[0],
            size=ShakeSize(amplitude, readout=0.0, scale=room_for(amplitude)),
            rng=np.random.default_rng(seed),
        )
        matrices = shake.middle.matrix(SIZE, SIZE)
        corners = matrices @ np.array([[0, SIZE[0] - 1, 0], [0, 0, SIZE[1] - 1], [1, 1, 1]])
        beyond = (corners < 0) | (corners > np.array(SIZE)[:, None] - 1)
        outside += int(beyond.any(axis=(1, 2)).sum())
    assert outside < 0.06 * 20 * 96
