"""Something near that moves through the picture, with a motion that is not the camera's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from deepstab.data.shake import Floats, Similarity, Size, see, waves
from deepstab.image import Image

_NUM_CORNERS = 64
_SOFT_EDGE_PX = 1.2


def occlude(
    frames: Sequence[Image],
    texture: Sequence[Image],
    *,
    frame_rate: float,
    rng: np.random.Generator,
) -> Iterator[Image]:
    """Cover 15 to 55 % of every frame by a blob that sways on its own.

    Args:
        frames: (height, width, 3) uint8, of one size.
        texture: frames of any size that the blob is cut from; a video plays back and forth in it.
        frame_rate: frames/s.
        rng: source of all randomness.
    """
    height, width = frames[0].shape[:2]
    outline = _blob(rng.uniform(0.15, 0.55) * width * height, rng)
    center = np.array([width * rng.uniform(0.25, 0.75), height * rng.uniform(0.4, 1.0)])
    times_s = np.arange(len(frames)) / frame_rate
    reach_px = width * 10 ** rng.uniform(-3.1, -1.5)
    sway = reach_px * np.stack([waves(times_s, (0.2, 2.5), rng) for _ in range(2)], axis=1)
    growth = 1 + 0.03 * waves(times_s, (0.2, 1.0), rng)
    start = int(rng.integers(0, len(texture)))
    enlarged = rng.uniform(1.0, 2.2)
    for index, frame in enumerate(frames):
        cut = _back_and_forth(texture, start + index)
        fit = max(width / cut.shape[1], height / cut.shape[0]) * enlarged
        moved = complex(*sway[index])
        view = Similarity(np.array([1 / fit + 0j]), np.array([-moved / fit]))
        alpha = _mask(outline * growth[index] + center + sway[index], (width, height))
        near = see(cut, view, (width, height))
        yield np.rint(frame + alpha * (near - frame)).astype(np.uint8)


def _blob(area_px: float, rng: np.random.Generator) -> Floats:
    """The corners (_NUM_CORNERS, 2) of a round shape with bays about (0, 0)."""
    angles = np.linspace(0, 2 * np.pi, _NUM_CORNERS, endpoint=False)
    bays = sum(
        rng.normal(0, 0.35 / (order + 1)) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
        for order in range(1, 5)
    )
    radius = np.exp(bays)
    corners = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners *= [rng.uniform(0.6, 1.0), 1.0]
    area = cv2.contourArea(corners.astype(np.float32))
    scaled: Floats = corners * np.sqrt(area_px / area)
    return scaled


def _mask(outline: Floats, size: Size) -> Floats:
    alpha = np.zeros(size[::-1], np.uint8)
    # 4 bits after the point: an outline that moves by less than a pixel moves smoothly.
    cv2.fillPoly(alpha, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(alpha, (0, 0), _SOFT_EDGE_PX).astype(np.float32)[..., None] / 255


def _back_and_forth(frames: Sequence[Image], index: int) -> Image:
    turn = index % max(1, 2 * len(frames) - 2)
    return frames[min(turn, 2 * len(frames) - 2 - turn)]
