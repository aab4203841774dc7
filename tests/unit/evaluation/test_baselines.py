"""Baselines: the correction's convention and size by hand, and real runs of ffmpeg."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from benchmarks.quality.vidstab import vidstab, vidstab_available
from benchmarks.quality.zoomed import smallest_zoom, warp_frames
from skimage import data

from deepstab.errors import VideoError
from deepstab.evaluation.baselines import gaussian_path_corrections

WIDTH, HEIGHT = 320, 240
IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])

needs_vidstab = pytest.mark.skipif(not vidstab_available(), reason="ffmpeg has no vid.stab")


def view(shift: tuple[int, int]) -> np.ndarray:
    """A window of a photo, moved so that the content goes by exactly `shift` whole pixels."""
    photo = data.astronaut()
    left, top = 96 - shift[0], 130 - shift[1]
    return np.ascontiguousarray(photo[top : top + HEIGHT, left : left + WIDTH])


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, frames[0].shape[1::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def read_video(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return frames


def difference(image: np.ndarray, reference: np.ndarray) -> float:
    center = np.s_[30:-30, 40:-40]
    return float(np.abs(image[center].astype(float) - reference[center]).mean())


class TestGaussianPath:
    def test_one_jolt_is_looked_up_where_its_content_went(self) -> None:
        # A single frame jumps by (8, 3). Its own share of the average is 1 / (10 sqrt(2 pi)),
        # so the steady output finds its content at +0.9601 of the jump.
        frames = [view((8, 3) if t == 20 else (0, 0)) for t in range(41)]
        corrections = gaussian_path_corrections(frames, sigma_frames=10)
        assert corrections.shape == (41, 2, 3)
        kept = 1 - 1 / (10 * math.sqrt(2 * math.pi))
        np.testing.assert_allclose(corrections[20, :, 2], [8 * kept, 3 * kept], atol=0.1)
        np.testing.assert_allclose(corrections[20, :, :2], np.eye(2), atol=1e-3)
        steady = list(warp_frames(frames, corrections, zoom=1.0))
        assert difference(frames[20], frames[19]) > 4 * difference(steady[20], steady[19])

    def test_roll_is_undone(self) -> None:
        # Every other frame is turned by +-0.02 rad from x to y about the center.
        center = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        frames = []
        for t in range(24):
            # OpenCV's angle is positive against the clock: y to x on the screen.
            turn = cv2.getRotationMatrix2D(center, -math.degrees(0.02 * (-1) ** t), 1.0)
            frames.append(cv2.warpAffine(view((0, 0)), turn, (WIDTH, HEIGHT)))
        corrections = gaussian_path_corrections(frames, sigma_frames=3)
        # Output -> input is the turn itself: sin in the lower left.
        np.testing.assert_allclose(corrections[10, 1, 0], 0.02, atol=1e-3)
        np.testing.assert_allclose(corrections[11, 1, 0], -0.02, atol=1e-3)
        moved = corrections[10, :, :2] @ center + corrections[10, :, 2]
        np.testing.assert_allclose(moved, center, atol=0.1)

    def test_a_steady_pan_is_left_alone_from_the_first_frame(self) -> None:
        frames = [view((2 * t - 20, t - 10)) for t in range(21)]
        corrections = gaussian_path_corrections(frames, sigma_frames=4)
        np.testing.assert_allclose(corrections, np.tile(IDENTITY, (21, 1, 1)), atol=0.15)

    def test_wide_frames_are_corrected_in_their_own_pixels(self) -> None:
        frames = [cv2.resize(view((4 if t == 10 else 0, 0)), None, fx=4, fy=4) for t in range(21)]
        corrections = gaussian_path_corrections(frames, sigma_frames=2)
        kept = 1 - 1 / (2 * math.sqrt(2 * math.pi))
        assert corrections[10, 0, 2] == pytest.approx(16 * kept, abs=0.3)

    def test_featureless_frames_stay_where_they_are(self) -> None:
        gray = [np.full((90, 160, 3), 128, np.uint8)] * 5
        corrections = gaussian_path_corrections(gray, sigma_frames=2)
        np.testing.assert_allclose(corrections, np.tile(IDENTITY, (5, 1, 1)), atol=1e-12)

    def test_one_frame(self) -> None:
        corrections = gaussian_path_corrections([view((0, 0))], sigma_frames=2)
        np.testing.assert_allclose(corrections, IDENTITY[None], atol=1e-12)

    @pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
    def test_refuses_a_sigma(self, sigma: float) -> None:
        with pytest.raises(ValueError, match="sigma_frames must be positive"):
            gaussian_path_corrections([view((0, 0))], sigma_frames=sigma)

    def test_refuses_no_frames_and_two_sizes(self) -> None:
        with pytest.raises(ValueError, match="no frames"):
            gaussian_path_corrections([], sigma_frames=2)
        with pytest.raises(ValueError, match="frame 1 is 310x240"):
            gaussian_path_corrections(
                [view((0, 0)), np.ascontiguousarray(view((0, 0))[:, :310])], sigma_frames=2
            )


class TestWarp:
    def test_output_to_input_in_x_y_order(self) -> None:
        frame = view((0, 0))
        shift = np.array([[1.0, 0, 7], [0, 1, 2]])
        (warped,) = warp_frames([frame], shift[None], zoom=1.0)
        assert np.array_equal(warped[:-2, :-7], frame[2:, 7:])
        assert not warped[-2:].any()

    def test_zoom_holds_the_center(self) -> None:
        frame = np.zeros((101, 101, 3), np.uint8)
        frame[50, 50], frame[50, 70] = 255, 255
        (warped,) = warp_frames([frame], IDENTITY[None], zoom=2.0)
        assert warped[50, 50, 0] == 255
        assert warped[50, 90, 0] == 255

    @pytest.mark.parametrize("num_frames", [1, 3])
    def test_every_frame_has_its_correction(self, num_frames: int) -> None:
        with pytest.raises(ValueError, match="zip"):
            list(warp_frames([view((0, 0))] * num_frames, np.tile(IDENTITY, (2, 1, 1)), zoom=1))

    def test_smallest_zoom_of_a_shift(self) -> None:
        # 10 of the 50 px from center to edge: 50 / 40.
        shift = np.array([IDENTITY, [[1.0, 0, -10], [0, 1, 0]]])
        zoom = smallest_zoom(shift, width=101, height=101, max_zoom=2.0)
        assert zoom == pytest.approx(1.25)
        assert smallest_zoom(shift, width=101, height=101, max_zoom=1.1) == 1.1
        assert smallest_zoom(shift[:1], width=101, height=101, max_zoom=2.0) == 1.0

    def test_smallest_zoom_of_a_correction_out_of_the_frame(self) -> None:
        away = np.array([[[1.0, 0, 400], [0, 1, 0]]])
        assert smallest_zoom(away, width=101, height=101, max_zoom=3.0) == 3.0

    def test_smallest_zoom_leaves_no_black(self) -> None:
        white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        turn = cv2.getRotationMatrix2D((153, 95), 4, 0.97)
        zoom = smallest_zoom(turn[None], width=WIDTH, height=HEIGHT, max_zoom=2.0)
        (enough,) = warp_frames([white], turn[None], zoom=zoom)
        (short,) = warp_frames([white], turn[None], zoom=zoom * 0.98)
        assert enough.min() > 200
        assert short.min() == 0

    def test_refuses_bad_zooms(self) -> None:
        with pytest.raises(ValueError, match=r"max_zoom must be at least 1, got 0\.9"):
            smallest_zoom(IDENTITY[None], width=9, height=9, max_zoom=0.9)
        with pytest.raises(ValueError, match="zoom must be positive, got 0"):
            list(warp_frames([], IDENTITY[None], zoom=0))


class TestVidstab:
    @needs_vidstab
    def test_steadies_a_shaken_video_frame_by_frame(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        frames = [view(tuple(int(v) for v in random.integers(-4, 5, 2))) for _ in range(30)]
        source, target = tmp_path / "it's shaky: 1.mp4", tmp_path / "steady, [a].mp4"
        write_video(source, frames)
        vidstab(source, target, crf=18, preset="ultrafast")
        steady = read_video(target)
        assert len(steady) == 30
        assert steady[0].shape == frames[0].shape
        before = np.mean([difference(a, b) for a, b in pairwise(frames)])
        after = np.mean([difference(a, b) for a, b in pairwise(steady)])
        assert after < 0.6 * before
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, target.name])

    @needs_vidstab
    def test_a_bad_video_is_one_line(self, tmp_path: Path) -> None:
        broken, target = tmp_path / "broken.mp4", tmp_path / "out.mp4"
        broken.write_bytes(b"no video" * 100)
        with pytest.raises(VideoError, match=r"broken\.mp4: ffmpeg vid\.stab failed: .+") as error:
            vidstab(broken, target, crf=18, preset="ultrafast")
        assert "\n" not in str(error.value)
        assert not target.exists()

    @needs_vidstab
    def test_an_output_that_cannot_be_written(self, tmp_path: Path) -> None:
        source = tmp_path / "in.mp4"
        write_video(source, [view((0, 0))] * 12)
        with pytest.raises(VideoError, match="cannot be written"):
            vidstab(source, tmp_path / "no folder" / "out.mp4", crf=18, preset="ultrafast")

    def test_without_ffmpeg(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert not vidstab_available()
        with pytest.raises(VideoError, match=r"in\.mp4: no ffmpeg with vid\.stab was found"):
            vidstab(tmp_path / "in.mp4", tmp_path / "out.mp4", crf=18, preset="medium")
