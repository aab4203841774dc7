"""Stabilization measures on paths, matrices and videos whose true answer is known by hand."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest
from skimage import data

from deepstab.metrics.homographies import cropping_ratio, distortion_values
from deepstab.metrics.motion import (
    UNTRACKED,
    Motion,
    detect_features,
    estimate_homography,
    estimate_motion,
)
from deepstab.metrics.stability import (
    CameraPath,
    accumulate_path,
    measure_video,
    residual_jitter,
    roll_jitter,
    score_video,
    score_videos,
    stability_score,
)

# x of a shake of period 4; its second difference is +-2 A in every other frame.
PERIOD_4 = (0, 1, 0, -1)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    # Without black, which would count as border.
    enlarged = cv2.resize(data.astronaut(), (900, 900), interpolation=cv2.INTER_CUBIC)
    return np.maximum(enlarged, 20)


def view(
    photo: np.ndarray, shift: tuple[int, int], width: int = 640, height: int = 360
) -> np.ndarray:
    """A window of the photo, moved so that the content goes by exactly `shift` whole pixels."""
    left = (photo.shape[1] - width) // 2 - shift[0]
    top = (photo.shape[0] - height) // 2 - shift[1]
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def warp(frame: np.ndarray, linear: Sequence[Sequence[float]]) -> np.ndarray:
    """Map the content by a 2x2 matrix about the center."""
    height, width = frame.shape[:2]
    center = np.array([width - 1, height - 1]) / 2
    matrix = np.column_stack([np.array(linear), center - np.array(linear) @ center])
    return cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_CUBIC)


def path_of(
    x: np.ndarray, y: np.ndarray | None = None, angle: np.ndarray | None = None
) -> CameraPath:
    zero = np.zeros(len(x))
    shift = np.column_stack([x, zero if y is None else y])
    return CameraPath(shift_px=shift, angle_rad=zero if angle is None else angle, log_scale=zero)


class TestPathMeasures:
    time = np.arange(120)

    def test_jitter_of_a_sine(self) -> None:
        # A (2 - 2 cos w) / sqrt(2), whole periods: w = 2 pi / 6, A = 3, so 3 / sqrt(2).
        shake = 3 * np.sin(2 * np.pi / 6 * np.arange(122))
        assert residual_jitter(path_of(shake)) == pytest.approx(3 / math.sqrt(2))

    def test_jitter_adds_both_axes(self) -> None:
        shake = np.tile([3.0, 0.0], 30)
        # Second differences +-6 in x and +-8 in y.
        assert residual_jitter(path_of(shake, shake * 4 / 3)) == pytest.approx(10.0)

    def test_a_steady_pan_has_no_jitter(self) -> None:
        assert residual_jitter(path_of(5.0 * self.time, -2.0 * self.time)) < 1e-9

    def test_roll_jitter_is_in_degrees(self) -> None:
        angle = np.tile([0.0, math.radians(0.5)], 30)
        assert roll_jitter(path_of(np.zeros(60), angle=angle)) == pytest.approx(1.0)

    def test_jitter_needs_three_frames(self) -> None:
        with pytest.raises(ValueError, match="at least 3 frames, got 2"):
            residual_jitter(path_of(np.zeros(2)))

    @pytest.mark.parametrize(("cycles", "share"), [(1, 1.0), (5, 1.0), (6, 0.0), (40, 0.0)])
    def test_stability_counts_up_to_bin_five(self, cycles: int, share: float) -> None:
        wave = np.sin(2 * np.pi * cycles * self.time / 120)
        path = path_of(20 * wave, 3 * wave, 0.1 * wave)
        assert stability_score(path) == pytest.approx(share, abs=1e-9)

    def test_stability_is_a_share_of_energy(self) -> None:
        # Amplitudes 3 and 1: 9 / 10 of the energy of every signal.
        wave = np.sin(2 * np.pi * 2 * self.time / 120)
        ripple = np.sin(2 * np.pi * 30 * self.time / 120)
        signal = 3 * wave + ripple
        assert stability_score(path_of(signal, signal, signal)) == pytest.approx(0.9)

    def test_stability_is_the_mean_of_x_y_and_rotation(self) -> None:
        fast = np.sin(2 * np.pi * 30 * self.time / 120)
        slow = np.sin(2 * np.pi * 2 * self.time / 120)
        assert stability_score(path_of(fast, slow, slow)) == pytest.approx(2 / 3)
        assert stability_score(path_of(slow, slow, fast)) == pytest.approx(2 / 3)

    def test_a_static_path_is_perfectly_stable(self) -> None:
        assert stability_score(path_of(np.zeros(50))) == 1.0
        noise = np.random.default_rng(0).normal(0, 0.01, 50)
        assert stability_score(path_of(noise, noise, noise / 320)) == 1.0

    def test_the_mean_position_does_not_count(self) -> None:
        fast = np.sin(2 * np.pi * 30 * self.time / 120)
        assert stability_score(path_of(fast + 1000, fast, fast)) == pytest.approx(0.0, abs=1e-9)

    def test_long_paths_are_scored_in_windows_of_240(self) -> None:
        # 5 cycles in 240 frames are slow; over 480 frames they are bin 10.
        time = np.arange(480)
        wave = np.sin(2 * np.pi * 5 * time / 240)
        assert stability_score(path_of(wave, wave, wave)) == pytest.approx(1.0)
        # The last window ends with the video: frames 60 to 300, also whole periods.
        assert stability_score(path_of(*(wave[:300],) * 3)) == pytest.approx(1.0)

    def test_stability_needs_frequencies(self) -> None:
        with pytest.raises(ValueError, match="at least 12 frames, got 11"):
            stability_score(path_of(np.zeros(11)))

    def test_a_path_sums_motions(self) -> None:
        path = accumulate_path(
            [Motion(1.0, 2.0, 0.1, 0.01, tracked=True), UNTRACKED, Motion(3, -1, 0.2, 0.02, True)]
        )
        assert path.shift_px.tolist() == [[0, 0], [1, 2], [1, 2], [4, 1]]
        np.testing.assert_allclose(path.angle_rad, [0, 0.1, 0.1, 0.3])
        np.testing.assert_allclose(path.log_scale, [0, 0.01, 0.01, 0.03])


class TestHomographyMeasures:
    @staticmethod
    def affine(
        linear: Sequence[Sequence[float]], shift: tuple[float, float] = (0, 0)
    ) -> np.ndarray:
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = linear, shift
        return matrix

    def test_crop_is_the_mean_of_the_frames(self) -> None:
        zooms = np.array([self.affine(np.eye(2) * z, (30, -9)) for z in (1.25, 1.0, 0.5)])
        # A shrunk frame does not make up for the others.
        assert cropping_ratio(zooms) == pytest.approx((0.8 + 1 + 1) / 3)

    def test_a_rotation_is_no_distortion(self) -> None:
        c, s = math.cos(0.6), math.sin(0.6)
        rotation = self.affine([[c, -s], [s, c]], (50, 20))[None]
        assert distortion_values(rotation) == pytest.approx(1.0)
        assert cropping_ratio(rotation) == pytest.approx(1.0)

    def test_stretch_and_shear(self) -> None:
        stretch = self.affine([[1.25, 0], [0, 1]])
        shear = self.affine([[1, 0.2], [0, 1]])
        # The shear's singular values are 0.1 + sqrt(1.01) and its inverse.
        expected = [0.8, 1 / (0.1 + math.sqrt(1.01)) ** 2]
        np.testing.assert_allclose(distortion_values(np.array([stretch, shear])), expected)

    def test_perspective_is_taken_at_the_center(self) -> None:
        # d/dx (x + 100) / (1 + 0.001 x) at 0 is 1 - 0.1; the factor 2 has no meaning.
        matrix = 2 * np.array([[1, 0, 100], [0, 1, 0], [0.001, 0, 1]])
        assert distortion_values(matrix[None]) == pytest.approx(0.9)

    @pytest.mark.parametrize("shape", [(3, 3), (0, 3, 3), (4, 2, 3)])
    def test_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"must be \(num, 3, 3\)"):
            cropping_ratio(np.ones(shape))


class TestMotion:
    def test_whole_pixel_shift(self, photo: np.ndarray) -> None:
        motion = estimate_motion(
            detect_features(view(photo, (0, 0))), detect_features(view(photo, (17, -6)))
        )
        assert motion.tracked
        assert motion.shift_x_px == pytest.approx(17, abs=0.03)
        assert motion.shift_y_px == pytest.approx(-6, abs=0.03)
        assert motion.angle_rad == pytest.approx(0, abs=1e-4)
        assert motion.log_scale == pytest.approx(0, abs=1e-4)

    def test_roll_and_zoom_about_the_center(self, photo: np.ndarray) -> None:
        # Content turns from x to y by 0.05 rad and grows by 2 %.
        frame = view(photo, (0, 0))
        c, s = 1.02 * math.cos(0.05), 1.02 * math.sin(0.05)
        moved = warp(frame, [[c, -s], [s, c]])
        motion = estimate_motion(detect_features(frame), detect_features(moved))
        assert motion.angle_rad == pytest.approx(0.05, abs=3e-4)
        assert motion.log_scale == pytest.approx(math.log(1.02), abs=3e-4)
        assert math.hypot(motion.shift_x_px, motion.shift_y_px) < 0.08

    @pytest.mark.parametrize(("width", "factor"), [(320, 2.0), (480, 4 / 3), (800, 0.8)])
    def test_lengths_are_px_at_width_640(
        self, photo: np.ndarray, width: int, factor: float
    ) -> None:
        first, second = (view(photo, shift, width, 401) for shift in ((0, 0), (8, -4)))
        motion = estimate_motion(detect_features(first), detect_features(second))
        assert motion.shift_x_px == pytest.approx(8 * factor, abs=0.05)
        assert motion.shift_y_px == pytest.approx(-4 * factor, abs=0.05)

    def test_the_background_outvotes_a_moving_object(self, photo: np.ndarray) -> None:
        frames = [view(photo, shift) for shift in ((0, 0), (5, 2))]
        person = data.coffee()[:200, :300]
        frames[0][80:280, 100:400] = person
        frames[1][70:270, 120:420] = person
        motion = estimate_motion(*(detect_features(frame) for frame in frames))
        assert motion.shift_x_px == pytest.approx(5, abs=0.05)
        assert motion.shift_y_px == pytest.approx(2, abs=0.05)

    def test_noise_floor_on_a_tripod(self, photo: np.ndarray) -> None:
        random = np.random.default_rng(0)
        clean = view(photo, (0, 0)).astype(np.float64)
        noisy = [
            np.clip(clean + random.normal(0, 5, clean.shape), 0, 255).round().astype(np.uint8)
            for _ in range(12)
        ]
        measures = measure_video(noisy)
        assert measures.jitter_px < 0.04
        assert measures.roll_jitter_deg < 0.01
        assert measures.stability == 1.0

    def test_a_cut_is_not_motion(self, photo: np.ndarray) -> None:
        other = cv2.resize(data.coffee(), (640, 360), interpolation=cv2.INTER_AREA)
        first, second = detect_features(view(photo, (0, 0))), detect_features(other)
        assert estimate_motion(first, second) == UNTRACKED
        assert estimate_homography(first, second) is None

    def test_is_deterministic(self, photo: np.ndarray) -> None:
        first, second = (detect_features(view(photo, shift)) for shift in ((0, 0), (9, 4)))
        assert estimate_motion(first, second) == estimate_motion(first, second)

    def test_refuses_frames_of_two_sizes(self, photo: np.ndarray) -> None:
        with pytest.raises(ValueError, match="differ in size"):
            estimate_motion(
                detect_features(view(photo, (0, 0))), detect_features(view(photo, (0, 0), 600))
            )

    def test_refuses_float_frames(self) -> None:
        with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8"):
            detect_features(np.zeros((90, 160, 3)))


class TestVideos:
    def test_shake_of_known_amplitude(self, photo: np.ndarray) -> None:
        # 320 px wide, A = 3: A = 6 at width 640; w = pi/2, so jitter = 2 A / sqrt(2);
        # 7 whole periods, so nothing leaks into the low bins.
        frames = [view(photo, (3 * PERIOD_4[t % 4], 0), 320, 200) for t in range(28)]
        measures = measure_video(frames)
        assert measures.num_frames == 28
        assert measures.num_untracked == 0
        assert measures.jitter_px == pytest.approx(6 * math.sqrt(2), rel=0.01)
        assert measures.roll_jitter_deg < 0.02
        # x is all fast, y and rotation are still.
        assert measures.stability == pytest.approx(2 / 3, abs=0.02)
        assert measures.black_fraction == 0

    def test_zoomed_output(self, photo: np.ndarray) -> None:
        frames = [view(photo, (t, -t), 320, 200) for t in range(12)]
        score = score_video(frames, [warp(f, np.eye(2) * 1.25) for f in frames])
        assert score.num_unmatched == 0
        assert score.crop == pytest.approx(0.8, abs=0.003)
        assert score.distortion_mean == pytest.approx(1, abs=0.005)
        assert score.input.jitter_px < 0.1
        assert score.output.jitter_px < 0.2

    def test_the_worst_frame_decides_distortion(self, photo: np.ndarray) -> None:
        frames = [view(photo, (t, 0), 320, 200) for t in range(12)]
        outputs = [*frames[:-1], warp(frames[-1], [[1.1, 0], [0, 1]])]
        score = score_video(frames, outputs)
        assert score.distortion_worst == pytest.approx(1 / 1.1, abs=0.005)
        assert score.distortion_mean == pytest.approx((11 + 1 / 1.1) / 12, abs=0.001)

    def test_cropped_smaller_output(self, photo: np.ndarray) -> None:
        # 256 of 320 px are left: 0.8 of the field of view, whatever the size it is stored in.
        frames = [view(photo, (0, t), 320, 200) for t in range(12)]
        score = score_video(frames, [f[20:180, 32:288] for f in frames])
        assert score.crop == pytest.approx(0.8, abs=0.003)

    def test_input_stands_beside_the_output(self, photo: np.ndarray) -> None:
        shaky = [view(photo, (2 * PERIOD_4[t % 4], 0), 320, 200) for t in range(14)]
        steady = [view(photo, (0, 0), 320, 200)] * 14
        steady[3] = np.where(np.arange(320)[:, None] < 16, np.uint8(0), steady[3])
        score = score_video(iter(shaky), iter(steady))
        assert score.input == measure_video(shaky)
        assert score.input.jitter_px == pytest.approx(4 * math.sqrt(2), rel=0.01)
        assert score.output.jitter_px < 0.05
        assert score.output.interframe_psnr_db > score.input.interframe_psnr_db + 10
        assert score.output.black_fraction == pytest.approx(0.05 / 14)

    def test_several_outputs_are_scored_as_each_alone(self, photo: np.ndarray) -> None:
        shaky = [view(photo, (2 * PERIOD_4[t % 4], 0), 320, 200) for t in range(12)]
        steady = [view(photo, (0, 0), 320, 200)] * 12
        zoomed = [warp(frame, np.eye(2) * 1.25) for frame in shaky]
        found = score_videos(iter(shaky), [iter(steady), iter(zoomed)])
        alone = [score_video(shaky, output) for output in (steady, zoomed)]
        for one, other in zip(found, alone, strict=True):
            assert one.input.jitter_px == other.input.jitter_px
            assert one.output.jitter_px == other.output.jitter_px
            assert (one.crop, one.distortion_worst) == (other.crop, other.distortion_worst)
        assert found[1].crop == pytest.approx(0.8, abs=0.003)
        with pytest.raises(ValueError, match="the output ends after 11 frames"):
            score_videos(shaky, [steady, zoomed[:-1]])

    def test_a_featureless_video_is_counted_not_crashed(self) -> None:
        gray = [np.full((90, 160, 3), 128, np.uint8)] * 13
        score = score_video(gray, gray)
        assert score.output.num_untracked == 12
        assert score.num_unmatched == 13
        assert score.output.jitter_px == 0
        assert math.isnan(score.crop)
        assert math.isnan(score.distortion_worst)

    @pytest.mark.parametrize(("num_input", "num_output"), [(13, 14), (14, 13)])
    def test_lengths_must_agree(self, num_input: int, num_output: int) -> None:
        frame = np.full((64, 64, 3), 9, np.uint8)
        shorter = "input" if num_input < num_output else "output"
        with pytest.raises(ValueError, match=f"the {shorter} ends after 13 frames"):
            score_video([frame] * num_input, [frame] * num_output)

    def test_no_frames(self) -> None:
        with pytest.raises(ValueError, match="at least 12 frames"):
            measure_video([])

    def test_memory_does_not_grow(self) -> None:
        alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
        most = 0

        class Frame(np.ndarray):
            __hash__ = object.__hash__

        def stream() -> Iterator[np.ndarray]:
            nonlocal most
            for value in range(20):
                frame = np.full((64, 64, 3), value, np.uint8).view(Frame)
                alive.add(frame)
                most = max(most, len(alive))
                yield frame
                del frame

        score_video(stream(), stream())
        assert 2 <= most <= 8
