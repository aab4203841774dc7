"""Pins of the convention, worked by hand."""

from __future__ import annotations

import numpy as np

from deepstab.pixels import theta_to_pixels


def test_normalized_to_pixels_by_hand() -> None:
    # 8 x 4 px. Normalized x = 0.25 wide shift is 1 px (8 / 2 * 0.25); y = -0.5 is -1 px.
    theta = np.array([[1.0, 0, 0.25], [0, 1, -0.5]])
    expected = [[1, 0, 1], [0, 1, -1]]
    np.testing.assert_allclose(theta_to_pixels(theta, width=8, height=4), expected)
    # A shear of x by normalized y: y spans 4 px where x spans 8, about the center (3.5, 1.5).
    theta = np.array([[1.0, 0.5, 0], [0, 1, 0]])
    expected = [[1, 1, -1.5], [0, 1, 0]]
    np.testing.assert_allclose(theta_to_pixels(theta, width=8, height=4), expected)
