from __future__ import annotations

import numpy as np

from deepstab.data.occluders import occlude
from deepstab.image import Image


def occluded(seed: int, texture: list[Image]) -> np.ndarray:
    frames = [np.zeros((120, 200, 3), np.uint8)] * 30
    rng = np.random.default_rng(seed)
    return np.stack(list(occlude(frames, texture, frame_rate=30.0, rng=rng)))


def test_something_near_covers_a_part_of_every_frame_and_moves() -> None:
    white = [np.full((60, 90, 3), 255, np.uint8)]
    moved_px = []
    for seed in range(12):
        video = occluded(seed, white)
        cover = (video[..., 0] > 127).mean(axis=(1, 2))
        # Part of the shape may lie outside of the frame.
        assert (cover > 0.04).all()
        assert (cover < 0.65).all()
        ys, xs = np.nonzero(video[0, :, :, 0] > 127)
        ys2, xs2 = np.nonzero(video[12, :, :, 0] > 127)
        moved_px.append(np.hypot(xs.mean() - xs2.mean(), ys.mean() - ys2.mean()))
    assert np.median(moved_px) > 0.2


def test_its_texture_is_what_another_video_shows_back_and_forth() -> None:
    texture = [np.full((60, 90, 3), value, np.uint8) for value in (100, 150, 200)]
    video = occluded(3, texture)
    brightest = [int(frame.max()) for frame in video]
    cycle = [100, 150, 200, 150] * 10
    assert any(brightest == cycle[start : start + 30] for start in range(4))


def test_the_same_seed_gives_the_same_thing() -> None:
    white = [np.full((60, 90, 3), 255, np.uint8)]
    np.testing.assert_array_equal(occluded(1, white), occluded(1, white))
    assert (occluded(1, white) != occluded(2, white)).any()
