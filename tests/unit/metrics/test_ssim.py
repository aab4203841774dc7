"""Cropped SSIM against values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import data
from skimage.metrics import structural_similarity

from deepstab.metrics.ssim import cropped_ssim
from tests.unit.metrics.test_image import gray_frame


def test_ssim_of_constant_images() -> None:
    # (2 a b + C1) / (a^2 + b^2 + C1) with C1 = (0.01 * 255)^2; no contrast, so no other term.
    expected = (2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025)
    assert cropped_ssim(gray_frame(100), gray_frame(120), border=0.1) == pytest.approx(expected)


def test_cropped_ssim_ignores_exactly_the_border() -> None:
    reference = data.astronaut()[:200, :300]
    image = reference.copy()
    # 10 % of 200 and 300
    image[:20], image[-20:], image[:, :30], image[:, -30:] = 0, 0, 0, 0
    assert cropped_ssim(image, reference, border=0.1) == pytest.approx(1.0)
    assert cropped_ssim(image, reference, border=0.09) < 0.99
    image[20] = 0
    assert cropped_ssim(image, reference, border=0.1) < 0.999


@pytest.mark.parametrize("shape", [(61, 90, 3), (7, 20, 3), (40, 33)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    image, reference = (rng.integers(0, 256, shape, np.uint8) for _ in range(2))
    for other in (reference, image // 2 + reference // 2):
        expected = structural_similarity(
            image, other, data_range=255, channel_axis=2 if len(shape) == 3 else None
        )
        assert cropped_ssim(image, other, border=0) == pytest.approx(expected, abs=1e-10)


def test_cropped_ssim_of_float_equals_uint8() -> None:
    reference, image = data.astronaut()[:100, :100], data.coffee()[:100, :100]
    as_float = cropped_ssim(image / 255.0, reference / 255.0, border=0.1)
    assert as_float == pytest.approx(cropped_ssim(image, reference, border=0.1))


@pytest.mark.parametrize("border", [-0.1, 0.5, math.nan])
def test_cropped_ssim_refuses_a_border(border: float) -> None:
    with pytest.raises(ValueError, match="border must be"):
        cropped_ssim(gray_frame(1), gray_frame(2), border=border)


def test_cropped_ssim_refuses_what_is_too_small() -> None:
    with pytest.raises(ValueError, match="leaves less than 7 px"):
        cropped_ssim(gray_frame(1, 10, 10), gray_frame(2, 10, 10), border=0.2)
