"""Taking the quick part of a wobble out of a whole video, and what that does to its corrections.

Convention: fields as in `deepstab.models.wobble`; a bent theta (2, 6) is a theta whose columns for
x, y and 1 are followed by those for x^2, xy and y^2, all normalized.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_KERNEL_REACH = 4  # the Gaussian is cut at so many sigma
_MIN_FRAMES = 3
# Along every side of the frame, points at which it is seen whether it stays filled.
_BORDER_POINTS = 9
# A frame is stretched by so much at most, which nobody sees; where the flow is wrong, it would be
# by more.
_MOST_STRETCH = 0.01
_PIXELS_AT_ONCE = 2**16


def quick_part(wobble: Floats, *, sigma: float, cuts: list[int]) -> Floats:
    """The part of an accumulated wobble that a Gaussian does not keep, scene by scene.

    Slow bending is the scene's depth as the camera moves on, and stays; what comes and goes within
    a few frames is rolling shutter and the shake of the perspective.

    Args:
        wobble: (num_frames, 6, 2), of each frame to the previous; the first of a scene is ignored.
        sigma: of the Gaussian, frames.
        cuts: first frames of the scenes after the first, ascending.

    Returns:
        (num_frames, 6, 2), by how much more than its similarity says each point of a frame is
        displaced; held back where that would stretch the frame by more than one percent.
    """
    parts = []
    for first, last in pairwise([0, *cuts, len(wobble)]):
        scene = wobble[first:last].copy()
        scene[:1] = 0
        path = -np.cumsum(scene, axis=0)
        parts.append(path - _smooth(path, sigma) if len(path) >= _MIN_FRAMES else 0 * path)
    quick = np.concatenate(parts)
    (xx, yx), (xy, yy) = quick[:, 1].T, quick[:, 2].T
    stretch = np.hypot(xx - yy, xy + yx)
    share = _MOST_STRETCH / np.maximum(stretch, _MOST_STRETCH)
    return share[:, None, None] * quick


def bend(thetas: Floats, wobble: Floats, aspect: float) -> Floats:
    """Thetas that go on through a wobble: p -> q + wobble(q), where q = theta(p).

    Args:
        thetas: (num_frames, 2, 3).
        wobble: (num_frames, 6, 2).
        aspect: width / height.

    Returns:
        Bent thetas (num_frames, 2, 6).
    """
    scale = np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    # The coordinates of q, isotropic, as polynomials of the normalized p in the order of columns.
    linear = np.zeros((len(thetas), 2, 6))
    linear[..., :3] = thetas * scale[:, None]
    qx, qy = linear[:, 0], linear[:, 1]
    one = np.broadcast_to(np.eye(6)[2], qx.shape)
    terms = [one, qx, qy, _product(qx, qx), _product(qx, qy), _product(qy, qy)]
    added = np.einsum("tkd,ktc->tdc", wobble, np.stack(terms))
    bent: Floats = (linear + added) / scale[:, None]
    return bent


def apply_bent(bent: Floats, points: Floats) -> Floats:
    """Points (num_points, 2) through bent thetas (..., 2, 6): (..., num_points, 2), normalized."""
    x, y = points[:, 0], points[:, 1]
    terms = np.stack([x, y, np.ones_like(x), x * x, x * y, y * y])
    mapped: Floats = np.swapaxes(bent @ terms, -1, -2)
    return mapped


def displacement(wobble: Floats, points: Complexes) -> Complexes:
    """By how much fields displace points, isotropic, x + iy.

    Args:
        wobble: (num_frames, 6, 2).
        points: (num_frames, num_points), or (num_points,), the same in all frames.

    Returns:
        (num_frames, num_points).
    """
    x, y = points.real, points.imag
    field = (wobble[..., 0] + 1j * wobble[..., 1]).T[..., None]
    moved: Complexes = field[0] + field[1] * x
    for coefficient, term in zip(field[2:], (y, x * x, x * y, y * y), strict=True):
        moved += coefficient * term
    return moved


def held_back(wobble: Floats, aspect: float, room: float) -> Floats:
    """A wobble, frame by frame weakened so far that it leaves the frame's border in its room.

    Args:
        wobble: (num_frames, 6, 2).
        aspect: width / height.
        room: by how much a point of the border may be displaced, as a share of the half side.
    """
    moved = displacement(wobble, border_points(aspect))
    share = np.maximum(np.abs(moved.real) / np.sqrt(aspect), np.abs(moved.imag) * np.sqrt(aspect))
    return wobble * (room / np.maximum(share.max(axis=1), room))[:, None, None]


def border_points(aspect: float) -> Complexes:
    """Points on its bottom, top, right and left side, nine each: (36,), isotropic x + iy."""
    side = np.linspace(-1, 1, _BORDER_POINTS)
    across = np.concatenate([side, side, np.ones_like(side), -np.ones_like(side)])
    down = np.concatenate([np.ones_like(side), -np.ones_like(side), side, side])
    points: Complexes = across * np.sqrt(aspect) + 1j * down / np.sqrt(aspect)
    return points


def warp_bent(images: Sequence[Image], bent: Floats) -> list[Image]:
    """Warp images of one size by one bent theta; outside, their edge is repeated.

    Args:
        images: each (height, width, 3) uint8 RGB, or one plane of it, (height, width).
        bent: (2, 6).
    """
    height, width = images[0].shape[:2]
    by_row, powers = pixel_map(bent, width=width, height=height)
    warped = [np.empty_like(image) for image in images]
    # A map of the whole frame would go through memory several times, a strip's stays in the cache.
    num_rows = min(max(_PIXELS_AT_ONCE // width, 1), height)
    strip = np.empty((2, num_rows, width), np.float32)
    for top in range(0, height, num_rows):
        rows = slice(top, min(top + num_rows, height))
        x, y = np.matmul(by_row[:, rows], powers, out=strip[:, : rows.stop - top])
        for image, target in zip(images, warped, strict=True):
            cv2.remap(
                image,
                x,
                y,
                cv2.INTER_LINEAR,
                dst=target[rows],
                borderMode=cv2.BORDER_REPLICATE,
            )
    return warped


def pixel_map(
    bent: Floats, *, width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each output pixel comes from, as polynomials of its column.

    Args:
        bent: (2, 6).
        width: of the frame, px.
        height: of the frame, px.

    Returns:
        Coefficients (2, height, 3) and powers of x (3, width), whose product is x and y, (2,
        height, width), px, pixel centers at whole numbers, as `cv2.remap` takes them.
    """
    x = (2 * np.arange(width) + 1) / width - 1
    y = (2 * np.arange(height) + 1) / height - 1
    half = np.array([[width], [height]]) / 2
    by_x, by_y, constant, by_xx, by_xy, by_yy = (half * bent).T[..., None]
    center = constant + half - 0.5
    by_row = [center + (by_y + by_yy * y) * y, by_x + by_xy * y, by_xx + 0 * y]
    powers = np.stack([np.ones_like(x), x, x * x])
    return np.stack(by_row, axis=-1).astype(np.float32), powers.astype(np.float32)


def _smooth(path: Floats, sigma: float) -> Floats:
    """Gaussian along the first axis; point reflection at the ends continues slopes."""
    reach = int(_KERNEL_REACH * sigma + 0.5)
    padding = ((reach, reach), *((0, 0),) * (path.ndim - 1))
    padded = np.pad(path, padding, mode="reflect", reflect_type="odd")
    kernel = cv2.getGaussianKernel(2 * reach + 1, sigma, cv2.CV_64F)
    smooth = cv2.filter2D(padded.reshape(len(padded), -1), cv2.CV_64F, kernel)
    return np.asarray(smooth, float)[reach : reach + len(path)].reshape(path.shape)


def _product(p: Floats, q: Floats) -> Floats:
    """Products (num_frames, 6) of linear polynomials (num_frames, 6)."""
    px, py, p1 = p[:, 0], p[:, 1], p[:, 2]
    qx, qy, q1 = q[:, 0], q[:, 1], q[:, 2]
    columns = [px * q1 + p1 * qx, py * q1 + p1 * qy, p1 * q1, px * qx, px * qy + py * qx, py * qy]
    product: Floats = np.stack(columns, axis=1)
    return product
