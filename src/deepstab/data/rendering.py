"""The frames that a virtual camera takes of a photograph.

Convention: a camera is a 3x3 similarity from output pixels (x, y) to photo pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.config import FlightParams
from deepstab.geometry import similarity_about_center
from deepstab.image import Image

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Flight:
    """All that one flight is made of. Paths have one row per frame: x, y (px of the output
    frame), roll (rad), log zoom."""

    photo: Image
    path: Floats
    shake: Floats
    view_scale: float
    view_center: tuple[float, float]
    objects: tuple[MovingObject, ...]
    gains: Floats
    blur_sigma_px: float
    noise_std: float


@dataclass(frozen=True)
class MovingObject:
    """A cut-out of a photograph that moves on its own: position and velocity in photo px."""

    texture: Image
    alpha: NDArray[np.float32]
    position: tuple[float, float]
    velocity: tuple[float, float]


def render_frames(
    flight: Flight, *, params: FlightParams, shaken: bool, rng: np.random.Generator
) -> Iterator[Image]:
    """Frames (height, width, 3) uint8 RGB of the stable or the shaken camera."""
    size = (params.width, params.height)
    for index in range(params.num_frames):
        camera = _camera(flight, index, size, shaken=shaken)
        frame = cv2.warpAffine(
            flight.photo,
            camera[:2],
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).astype(np.float32)
        for item in flight.objects:
            frame = _paint(frame, item, camera, index, size)
        if shaken:
            frame = _motion_blur(frame, _shake_velocity(flight, index))
        if flight.blur_sigma_px > 0.2:
            frame = cv2.GaussianBlur(frame, (0, 0), flight.blur_sigma_px).astype(np.float32)
        frame *= flight.gains[index]
        frame += flight.noise_std * rng.standard_normal(frame.shape, dtype=np.float32)
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def _camera(flight: Flight, index: int, size: tuple[int, int], *, shaken: bool) -> Floats:
    """The 3x3 similarity from output to photo pixels at one frame."""
    scale, (x, y) = flight.view_scale, flight.view_center
    to_photo = np.array(
        [
            [scale, 0, x - scale * (size[0] - 1) / 2],
            [0, scale, y - scale * (size[1] - 1) / 2],
            [0, 0, 1],
        ]
    )
    camera: Floats = to_photo @ similarity_about_center(flight.path[index], size)
    return camera @ similarity_about_center(flight.shake[index], size) if shaken else camera


def _paint(
    frame: NDArray[np.float32],
    item: MovingObject,
    camera: Floats,
    index: int,
    size: tuple[int, int],
) -> NDArray[np.float32]:
    x = item.position[0] + index * item.velocity[0]
    y = item.position[1] + index * item.velocity[1]
    to_object = (np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]]) @ camera)[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    alpha = cv2.warpAffine(item.alpha, to_object, size, flags=flags)[:, :, None]
    texture = cv2.warpAffine(item.texture, to_object, size, flags=flags)
    painted: NDArray[np.float32] = frame + alpha * (texture - frame)
    return painted


def _shake_velocity(flight: Flight, index: int) -> Floats:
    """Shake velocity in px per frame, by the difference to the neighboring frame."""
    first = min(index, len(flight.shake) - 2)
    velocity: Floats = flight.shake[first + 1, :2] - flight.shake[first, :2]
    return velocity


def _motion_blur(frame: NDArray[np.float32], velocity_px: Floats) -> NDArray[np.float32]:
    """Blur along the shake over a quarter of the frame time, centered: no shift of the image."""
    length = 0.25 * float(np.hypot(*velocity_px))
    if length < 1:
        return frame
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    for position in np.linspace(-0.5, 0.5, 4 * side):
        x, y = middle + position * length * velocity_px / np.hypot(*velocity_px)
        kernel[int(np.rint(y)), int(np.rint(x))] += 1
    return np.asarray(cv2.filter2D(frame, -1, kernel / kernel.sum()), dtype=np.float32)
