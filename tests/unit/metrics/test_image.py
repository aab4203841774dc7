"""Image quality against values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import data

from deepstab.metrics.image import black_pixel_fraction, interframe_psnr, psnr


def gray_frame(value: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_psnr_of_a_constant_difference_of_ten_levels() -> None:
    # MSE 100: 10 log10(255^2 / 100)
    assert psnr(gray_frame(110), gray_frame(100)) == pytest.approx(28.1308, abs=1e-4)


def test_psnr_does_not_wrap_uint8_around() -> None:
    # In uint8 arithmetic 0 - 255 is 1, which would give 48 dB.
    assert psnr(gray_frame(0), gray_frame(255)) == pytest.approx(0.0, abs=1e-12)
    # 100 - 110 is 246, whose square wraps to 100: right by chance; 100 - 120 squared is not.
    assert psnr(gray_frame(100), gray_frame(120)) == pytest.approx(22.1102, abs=1e-4)


def test_psnr_of_float_images() -> None:
    image = np.full((8, 8, 3), 0.6, dtype=np.float32)
    assert psnr(image, image - np.float32(0.1)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(2 * image, 2 * image - 0.2, data_range=2.0) == pytest.approx(20.0, abs=1e-4)


def test_psnr_of_identical_images_is_infinite() -> None:
    assert psnr(gray_frame(7), gray_frame(7)) == math.inf


def test_psnr_is_symmetric_and_leaves_its_arguments_alone() -> None:
    image, reference = data.astronaut(), np.ascontiguousarray(data.astronaut()[::-1])
    before = image.copy()
    assert psnr(image, reference) == psnr(reference, image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "reference", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), "differ in shape"),
        (np.zeros((4, 4)), np.zeros((4, 4), np.uint8), "both be uint8 or both float"),
        (np.zeros((4, 4), np.int32), np.zeros((4, 4), np.int32), "both be uint8 or both float"),
        (np.full((4, 4), 200.0), np.zeros((4, 4)), "do not fit data_range 1"),
        (np.full((4, 4), np.nan), np.zeros((4, 4)), "do not fit data_range 1"),
        (np.zeros(4), np.zeros(4), r"must be \(H, W\)"),
    ],
)
def test_psnr_refuses(image: np.ndarray, reference: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        psnr(image, reference)


def test_interframe_psnr_is_the_mean_of_consecutive_pairs() -> None:
    # Differences 10 and 20: 28.1308 and 22.1102 dB.
    frames = iter([gray_frame(100), gray_frame(110), gray_frame(90)])
    assert interframe_psnr(frames) == pytest.approx((28.1308 + 22.1102) / 2, abs=1e-4)


def test_a_repeated_frame_does_not_make_the_mean_infinite() -> None:
    # 10 log10(255^2 * 12), the rounding error of 8 bit
    assert interframe_psnr([gray_frame(5)] * 3) == pytest.approx(58.9226, abs=1e-4)


def test_interframe_psnr_needs_two_frames() -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        interframe_psnr([gray_frame(5)])


def test_black_border_is_counted() -> None:
    frame = gray_frame(90, 100, 100)
    frame[:, :10] = 0
    assert black_pixel_fraction(frame) == pytest.approx(0.10)
    frame[:5] = (0, 3, 4)
    assert black_pixel_fraction(frame) == pytest.approx(0.10 + 0.9 * 0.05)


def test_black_inside_the_picture_is_not_border() -> None:
    frame = gray_frame(90, 100, 100)
    frame[1:50, 1:50] = 0
    assert black_pixel_fraction(frame) == 0.0
    # A corner pixel touches the area only diagonally.
    frame[0, 0] = 0
    assert black_pixel_fraction(frame) == pytest.approx(1e-4)


def test_darkness_is_not_black() -> None:
    assert black_pixel_fraction(gray_frame(5)) == 0.0
    blue = gray_frame(0)
    blue[..., 2] = 60
    assert black_pixel_fraction(blue) == 0.0
    assert black_pixel_fraction(gray_frame(5), threshold=5) == 1.0


def test_black_pixel_fraction_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8"):
        black_pixel_fraction(np.zeros((4, 4, 3)))
