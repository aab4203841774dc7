"""Pins of the conventions, against OpenCV and values worked by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage
import torch
from jaxtyping import TypeCheckError

from deepstab import geometry, pixels


def test_theta_maps_output_to_input() -> None:
    # Output pixel x shows input pixel x + 1: the picture moves left by one.
    frame = torch.arange(5.0).reshape(1, 1, 1, 1, 5)
    theta = torch.tensor([[[[1.0, 0, 2 / 5], [0, 1, 0]]]])
    warped, inside = geometry.warp(frame, theta)
    torch.testing.assert_close(warped.flatten(), torch.tensor([1.0, 2, 3, 4, 4]))
    assert inside.flatten().tolist() == [1, 1, 1, 1, 0]


def test_warp_agrees_with_opencv_on_an_asymmetric_matrix() -> None:
    image = skimage.data.astronaut()[::4, ::3].astype(np.float32)
    height, width = image.shape[:2]
    theta = np.array([[1.03, -0.12, 0.08], [0.05, 0.93, -0.04]])
    expected = cv2.warpAffine(
        image,
        pixels.theta_to_pixels(theta, width=width, height=height),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    clip = torch.from_numpy(image).permute(2, 0, 1)[None, :, None]
    warped, _ = geometry.warp(clip, torch.from_numpy(theta).float()[None, None])
    difference = np.abs(warped[0, :, 0].permute(1, 2, 0).numpy() - expected)
    # OpenCV's warp works on a grid of 1/32 px.
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) < 4


def test_corner_shift_by_hand() -> None:
    theta = torch.tensor([[1.0, 0, 0.1], [0, 1, 0]])
    # 0.1 of half the width, at all four corners.
    assert abs(float(geometry.corner_shift_px(theta, width=640, height=360)) - 32) < 1e-4


def test_isotropic_unit_is_half_the_root_of_the_area() -> None:
    # 1600 x 900: root of the area 1200, half of it 600 px, which is 0.75 of half the width.
    theta = geometry.similarity_to_theta(
        torch.tensor([[[1.0, 1.0, 0, 0]]]), torch.tensor([16 / 9])
    )[0, 0]
    torch.testing.assert_close(theta[:, 2], torch.tensor([0.75, 4 / 3]))


def test_shapes_of_signatures_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError, match="theta"):
        geometry.warp(torch.zeros(1, 3, 4, 8, 8), torch.zeros(1, 5, 2, 3))
    with pytest.raises(TypeCheckError, match="points"):
        geometry.apply(torch.zeros(2, 3), torch.zeros(5, 3))
