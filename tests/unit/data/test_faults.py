from __future__ import annotations

import numpy as np
import pytest

from deepstab.config import FaultParams
from deepstab.data.faults import (
    draw_faults,
    draw_shown,
    draw_stride,
    lit,
    motion_blur,
    noisy,
    to_image,
)

TIMES_S = np.arange(40) / 30


def shares(value: float) -> FaultParams:
    return FaultParams(**dict.fromkeys(FaultParams.model_fields, value))


def test_shares_of_none_and_all() -> None:
    for seed in range(20):
        none = draw_faults(shares(0.0), times_s=TIMES_S, rng=np.random.default_rng(seed))
        assert (none.readout, none.shutter, none.gamma, none.crf) == (0, 0, 1, 18)
        assert not none.occluded
        assert (none.gains == 1).all()
        assert (draw_shown(shares(0.0), 40, np.random.default_rng(seed)) == np.arange(40)).all()
        assert draw_stride(shares(0.0), 30.0, np.random.default_rng(seed)) == 1
        every = draw_faults(shares(1.0), times_s=TIMES_S, rng=np.random.default_rng(seed))
        assert 0 < every.readout <= 0.8
        assert 0 < every.shutter <= 0.5
        assert 0.5 <= every.gamma < 1
        assert 26 <= every.crf <= 38
        assert every.occluded
        assert np.ptp(every.gains) > 0.01
        assert every.noise_std >= 2


def test_half_a_share_is_half_of_the_recordings() -> None:
    drawn = [
        draw_faults(shares(0.5), times_s=TIMES_S, rng=np.random.default_rng(seed))
        for seed in range(400)
    ]
    for of in (
        [fault.readout > 0 for fault in drawn],
        [fault.shutter > 0 for fault in drawn],
        [fault.gamma < 1 for fault in drawn],
        [fault.crf > 18 for fault in drawn],
        [fault.occluded for fault in drawn],
        [np.ptp(fault.gains) > 0 for fault in drawn],
    ):
        assert 0.4 < np.mean(of) < 0.6


def test_one_frame_is_repeated_or_dropped() -> None:
    steps = set()
    for seed in range(20):
        shown = draw_shown(shares(1.0), 40, np.random.default_rng(seed))
        assert len(shown) == 40
        odd = np.diff(shown)[np.diff(shown) != 1]
        assert len(odd) == 1
        steps.add(int(odd[0]))
    assert steps == {0, 2}


@pytest.mark.parametrize(("rate", "stride"), [(30.0, 3), (59.94, 6), (10.0, 1), (6.0, 1)])
def test_a_slow_camera_films_about_ten_frames_a_second(rate: float, stride: int) -> None:
    assert draw_stride(shares(1.0), rate, np.random.default_rng(0)) == stride


def test_blur_runs_along_the_path_and_does_not_shift_the_image() -> None:
    frame = np.zeros((41, 61, 3), np.float32)
    frame[20, 30] = 255
    blurred = motion_blur(frame, 12 + 5j)[:, :, 0]
    ys, xs = np.mgrid[0:41, 0:61]
    weights = np.maximum(blurred, 0) / blurred.sum()
    assert blurred.sum() == pytest.approx(255, rel=1e-4)
    assert (weights * xs).sum() == pytest.approx(30, abs=0.2)
    assert (weights * ys).sum() == pytest.approx(20, abs=0.2)
    covariance = np.cov(np.stack([xs.ravel(), ys.ravel()]), aweights=weights.ravel())
    # A uniform line of length 13 has the variance 13^2 / 12; it points to (12, 5).
    assert np.trace(covariance) == pytest.approx(169 / 12, rel=0.15)
    assert covariance[0, 1] / covariance[0, 0] == pytest.approx(5 / 12, rel=0.2)
    np.testing.assert_array_equal(motion_blur(frame, 0.5 + 0.5j), frame)


def test_noise_grows_with_the_light_as_counted_photons_do() -> None:
    faults = draw_faults(shares(1.0), times_s=TIMES_S, rng=np.random.default_rng(1))
    stds = {}
    for level in (32, 128):
        frame = np.full((200, 200, 3), level, np.float32)
        noise = noisy(frame, faults, np.random.default_rng(0)) - frame
        assert abs(noise.mean()) < 0.1
        stds[level] = noise.std()
    assert stds[128] == pytest.approx(faults.noise_std, rel=0.02)
    assert stds[32] == pytest.approx(stds[128] / 2, rel=0.02)


def test_low_light_darkens_the_middle_and_keeps_black_and_white() -> None:
    faults = draw_faults(shares(1.0), times_s=TIMES_S, rng=np.random.default_rng(1))
    frame = np.array([0, 128, 255], np.float32)
    dark = lit(frame, faults, 0) / faults.gains[0]
    np.testing.assert_allclose(dark[[0, 2]], [0, 255], rtol=1e-4)
    assert dark[1] == pytest.approx(255 * (128 / 255) ** (1 / faults.gamma), rel=1e-4)
    assert dark[1] < 127


def test_what_is_brighter_than_white_is_white() -> None:
    np.testing.assert_array_equal(
        to_image(np.array([-3, 0.5, 1.5, 300], np.float32)), [0, 0, 2, 255]
    )
