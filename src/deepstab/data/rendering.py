"""The frames that a virtual camera takes of a photograph and of what stands or moves above it.

Convention: similarities are those of `deepstab.data.shake`; the path of a flight goes from px of
the frame to px of the photo, both from the center.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.data.shake import Complexes, Similarity, Size, standing_still
from deepstab.image import Image


@dataclass(frozen=True)
class Flight:
    """What one flight passes: path (num_frames,), the ground, and what stands or moves above it."""

    photo: Image
    path: Similarity
    objects: tuple[MovingObject, ...]

    @property
    def own_motion(self) -> Similarity:
        """The motion of every frame to the one before it, (num_frames,)."""
        motion = standing_still(len(self.path))
        between = self.path[:-1].inverse() @ self.path[1:]
        motion.factor[1:], motion.shift[1:] = between.factor, between.shift
        return motion


@dataclass(frozen=True)
class MovingObject:
    """A cut-out of a photograph at positions (num_frames,) of its own, photo px from the center."""

    texture: Image
    alpha: NDArray[np.float32]
    positions: Complexes

    def moved(self, path: NDArray[np.complexfloating]) -> MovingObject:
        """The same object at its first position plus a path (num_frames,)."""
        return dataclasses.replace(self, positions=self.positions[0] + path)


def render_frames(flight: Flight, size: Size) -> Iterator[Image]:
    """Frames (height, width, 3) uint8 RGB of the camera that does not shake."""
    ground = (flight.photo.shape[1], flight.photo.shape[0])
    for index in range(len(flight.path)):
        camera = flight.path[index]
        frame = cv2.warpAffine(
            flight.photo,
            camera.matrix(size, ground),
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).astype(np.float32)
        for item in flight.objects:
            frame = _paint(frame, item, camera, index)
        yield np.rint(frame).astype(np.uint8)


def _paint(
    frame: NDArray[np.float32], item: MovingObject, camera: Similarity, index: int
) -> NDArray[np.float32]:
    """A frame with an object above it."""
    height, width = frame.shape[:2]
    view = Similarity(camera.factor, camera.shift - item.positions[index])
    to_object = view.matrix((width, height), (item.alpha.shape[1], item.alpha.shape[0]))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    alpha = cv2.warpAffine(item.alpha, to_object, (width, height), flags=flags)[:, :, None]
    texture = cv2.warpAffine(item.texture, to_object, (width, height), flags=flags)
    painted: NDArray[np.float32] = frame + alpha * (texture - frame)
    return painted
