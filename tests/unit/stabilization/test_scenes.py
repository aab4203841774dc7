from __future__ import annotations

import numpy as np
import skimage
from numpy.typing import NDArray

from deepstab.config import Params
from deepstab.data.flow import farneback
from deepstab.stabilization.scenes import find_cuts, unexplained


def scene(image: NDArray[np.uint8], num_frames: int) -> list[NDArray[np.uint8]]:
    """A 64 x 64 view that shakes over an image."""
    shifts = np.random.default_rng(0).integers(0, 5, (num_frames, 2))
    return [np.ascontiguousarray(image[y : y + 64, x : x + 64]) for y, x in shifts + 60]


def cuts(frames: list[NDArray[np.uint8]], params: Params) -> list[int]:
    flow = list(farneback(frames, params.flow))
    errors = [
        unexplained(before, after, field)
        for before, after, field in zip(frames, frames[1:], flow[1:], strict=False)
    ]
    return find_cuts(*np.array([(0.0, 0.0), *errors]).T)


def test_the_flow_says_where_each_pixel_was() -> None:
    # The view goes 3 px right and 2 down: what is at x was at x + 3 in the frame before.
    photo = skimage.data.astronaut()
    previous, frame = photo[100:164, 100:164], photo[102:166, 103:167]
    flow = np.broadcast_to(np.float32([3, 2]), (64, 64, 2)).copy()
    error, contrast = unexplained(previous, frame, flow)
    assert contrast > 20
    assert error < 0.1 * contrast  # of the edge, which is repeated
    wrong, _ = unexplained(previous, frame, -flow)
    swapped, _ = unexplained(previous, frame, flow[..., ::-1].copy())
    assert min(wrong, swapped) > 2 * error


def test_a_cut_is_found_where_it_is_and_shake_is_no_cut(tiny_params: Params) -> None:
    first = scene(skimage.data.astronaut(), 12)
    second = scene(skimage.data.coffee(), 9)
    third = scene(skimage.data.chelsea(), 9)
    assert cuts(first, tiny_params) == []
    assert cuts(first + second + third, tiny_params) == [12, 21]


def test_a_flash_of_light_is_not_two_scenes_of_one_frame(tiny_params: Params) -> None:
    frames = scene(skimage.data.astronaut(), 12)
    dimmed = [(frame * 0.9).astype(np.uint8) if i == 6 else frame for i, frame in enumerate(frames)]
    assert cuts(dimmed, tiny_params) == []


def test_flat_and_single_frames_have_no_cuts(tiny_params: Params) -> None:
    flat = [np.full((64, 64, 3), 90, np.uint8)] * 5
    assert cuts(flat, tiny_params) == []
    assert cuts(flat[:1], tiny_params) == []
