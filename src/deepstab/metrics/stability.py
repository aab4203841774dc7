"""Stabilization quality of a video: camera path, residual jitter, stability, crop, distortion.

Lengths are px at a frame width of 640 and angles degrees, whatever the size of the video. The
measures of paths are pure; `measure_video` and `score_videos` stream frames and
hold no more than two of each video.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from deepstab.image import REFERENCE_WIDTH_PX, Image
from deepstab.metrics.homographies import cropping_ratio, distortion_values
from deepstab.metrics.image import black_pixel_fraction, interframe_psnr
from deepstab.metrics.motion import (
    Features,
    Motion,
    detect_features,
    estimate_homography,
    estimate_motion,
)

STABILITY_FRAMES = 240
"""Frames of one stability window: the score depends on the length, so it is fixed."""

_NUM_LOW_BINS = 5
MIN_FRAMES = 2 * (_NUM_LOW_BINS + 1)
"""Shorter videos have no frequency above the low ones."""

# Motion from frame to frame that the estimator cannot tell from none, px at width 640.
_STATIC_PX = 0.03


@dataclass(frozen=True, eq=False)
class CameraPath:
    """Inter-frame motion summed up from the first frame, which is at 0.

    Attributes:
        shift_px: (num_frames, 2) translation (x, y) of the frame center, px at width 640.
        angle_rad: (num_frames,) rotation.
        log_scale: (num_frames,) natural logarithm of the magnification.
    """

    shift_px: NDArray[np.float64]
    angle_rad: NDArray[np.float64]
    log_scale: NDArray[np.float64]


@dataclass(frozen=True)
class VideoMeasures:
    """What can be said of one video alone.

    Attributes:
        num_frames: frames in the video.
        num_untracked: frames whose motion could not be measured and counts as none.
        stability: low-frequency share of the camera path, in [0, 1]; see `stability_score`.
        jitter_px: RMS second difference of the path's translation, px at width 640.
        roll_jitter_deg: RMS second difference of the path's rotation, degrees.
        interframe_psnr_db: mean PSNR between consecutive frames, dB.
        black_fraction: mean fraction of black border pixels.
        path: the camera path the measures were taken from.
    """

    num_frames: int
    num_untracked: int
    stability: float
    jitter_px: float
    roll_jitter_deg: float
    interframe_psnr_db: float
    black_fraction: float
    path: CameraPath = field(compare=False, repr=False)


@dataclass(frozen=True)
class StabilityScore:
    """A stabilized video against its input.

    Attributes:
        input: the input's own measures.
        output: the same of the stabilized video.
        crop: cropping ratio, in [0, 1]; NaN if no frame could be matched.
        distortion_mean: mean distortion value, in [0, 1]; NaN if no frame could be matched.
        distortion_worst: distortion value of the worst frame; NaN if none could be matched.
        num_unmatched: frames left out of crop and distortion for want of matches.
    """

    input: VideoMeasures
    output: VideoMeasures
    crop: float
    distortion_mean: float
    distortion_worst: float
    num_unmatched: int


def accumulate_path(motions: Sequence[Motion]) -> CameraPath:
    """Sum inter-frame motions up to a camera path of one more frame.

    Each frame's shift is added in the axes of that frame, as the field does: the sum, not the
    composition, because a composed path mixes roll and zoom drift into the translation.
    """
    steps = np.array(
        [(0.0, 0.0, 0.0, 0.0)]
        + [(m.shift_x_px, m.shift_y_px, m.angle_rad, m.log_scale) for m in motions]
    )
    path = np.cumsum(steps, axis=0)
    return CameraPath(shift_px=path[:, :2], angle_rad=path[:, 2], log_scale=path[:, 3])


def residual_jitter(path: CameraPath) -> float:
    """RMS length of the second difference of the translation, px at width 640.

    For `x(t) = A sin(w t)` this is `A * (2 - 2 cos w) / sqrt(2)`; a steady pan gives 0.

    Raises:
        ValueError: fewer than 3 frames.
    """
    return float(np.sqrt(np.sum(_second_difference(path.shift_px) ** 2, axis=1).mean()))


def roll_jitter(path: CameraPath) -> float:
    """RMS second difference of the rotation, degrees.

    Raises:
        ValueError: fewer than 3 frames.
    """
    return math.degrees(float(np.sqrt(np.mean(_second_difference(path.angle_rad) ** 2))))


def stability_score(path: CameraPath) -> float:
    """Share of the path's energy that is slow: 1 for a smooth path, towards 0 for a shaken one.

    For each of the signals x, y and rotation: the squared magnitudes of the bins 1 to 5 of the
    real Fourier transform, summed, over the sum of all bins from 1 up (bin 0, the mean, is left
    out; no window, no detrending). The score is the mean of the three. A signal without motion,
    an RMS of less than 0.03 px from frame to frame (for rotation at the left and right edge of
    the frame), scores 1: what is left of it is noise of the measurement.

    A path of more than 240 frames is cut into windows of 240, the last ending with the video,
    and scores their mean; shorter paths compare only with paths of the same length.

    Raises:
        ValueError: fewer than 12 frames.

    Source: Liu et al. 2013, section 6, with bins and signals as stated here.
    """
    num_frames = len(path.angle_rad)
    if num_frames < MIN_FRAMES:
        raise ValueError(f"stability needs at least {MIN_FRAMES} frames, got {num_frames}")
    edge_px = path.angle_rad * (REFERENCE_WIDTH_PX / 2)
    signals = np.column_stack([path.shift_px, edge_px])
    length = min(num_frames, STABILITY_FRAMES)
    starts = [*range(0, num_frames - length, length), num_frames - length]
    return float(np.mean([_low_frequency_shares(signals[s : s + length]) for s in starts]))


def measure_video(frames: Iterable[Image]) -> VideoMeasures:
    """Measure one video.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size.

    Raises:
        ValueError: fewer than 12 frames, or a frame of another shape.
    """
    meter = _Meter()
    for frame in frames:
        meter.add(frame)
    return meter.result()


def score_video(input_frames: Iterable[Image], output_frames: Iterable[Image]) -> StabilityScore:
    """Score a stabilized video against its input, reading both in lockstep.

    Args:
        input_frames: (H, W, 3) uint8 RGB, all of one size.
        output_frames: as many frames; the size may be another one.

    Raises:
        ValueError: one video ends before the other, fewer than 12 frames, or a frame of another
            shape.
    """
    return score_videos(input_frames, [output_frames])[0]


def score_videos(
    input_frames: Iterable[Image],
    outputs: Sequence[Iterable[Image]],
) -> list[StabilityScore]:
    """Score several stabilized videos of one input, which is measured once.

    Args:
        input_frames: (H, W, 3) uint8 RGB, all of one size.
        outputs: the frames of each stabilized video, as `score_video` takes them.

    Raises:
        ValueError: as `score_video`, of any of them.
    """
    before, after = _Meter(), [_Meter() for _ in outputs]
    matched: list[list[NDArray[np.float64]]] = [[] for _ in outputs]
    for index, (source, *targets) in enumerate(zip_longest(input_frames, *outputs)):
        if source is None or any(target is None for target in targets):
            shorter = "input" if source is None else "output"
            raise ValueError(
                f"the {shorter} ends after {index} frames but the other video goes on; "
                "stabilize without dropping frames"
            )
        features = before.add(source)
        for meter, homographies, target in zip(after, matched, targets, strict=True):
            homography = estimate_homography(features, meter.add(target))
            if homography is not None:
                homographies.append(homography)
    measures = before.result()
    return [
        _score(measures, meter.result(), homographies)
        for meter, homographies in zip(after, matched, strict=True)
    ]


def _score(
    before: VideoMeasures, after: VideoMeasures, homographies: list[NDArray[np.float64]]
) -> StabilityScore:
    matched = np.array(homographies)
    distortion = distortion_values(matched) if homographies else np.array([math.nan])
    return StabilityScore(
        input=before,
        output=after,
        crop=cropping_ratio(matched) if homographies else math.nan,
        distortion_mean=float(distortion.mean()),
        distortion_worst=float(distortion.min()),
        num_unmatched=before.num_frames - len(homographies),
    )


class _Meter:
    """Takes a video frame by frame and keeps numbers, and the last frame, only."""

    def __init__(self) -> None:
        self._last: tuple[Image, Features] | None = None
        self._motions: list[Motion] = []
        self._psnr_db: list[float] = []
        self._black: list[float] = []

    def add(self, frame: Image) -> Features:
        features = detect_features(frame)
        self._black.append(black_pixel_fraction(frame))
        if self._last is not None:
            last_frame, last_features = self._last
            self._psnr_db.append(interframe_psnr((last_frame, frame)))
            self._motions.append(estimate_motion(last_features, features))
        self._last = (frame, features)
        return features

    def result(self) -> VideoMeasures:
        path = accumulate_path(self._motions)
        stability = stability_score(path)
        return VideoMeasures(
            num_frames=len(self._black),
            num_untracked=sum(not motion.tracked for motion in self._motions),
            stability=stability,
            jitter_px=residual_jitter(path),
            roll_jitter_deg=roll_jitter(path),
            interframe_psnr_db=float(np.mean(self._psnr_db)),
            black_fraction=float(np.mean(self._black)),
            path=path,
        )


def _second_difference(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(signal) < 3:
        raise ValueError(f"a second difference needs at least 3 frames, got {len(signal)}")
    return np.diff(signal, n=2, axis=0)


def _low_frequency_shares(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    # (frames, signals) -> (signals,)
    energy = np.abs(np.fft.rfft(signals, axis=0)[1:]) ** 2
    total = energy.sum(axis=0)
    static = np.sqrt(np.mean(np.diff(signals, axis=0) ** 2, axis=0)) < _STATIC_PX
    shares = energy[:_NUM_LOW_BINS].sum(axis=0) / np.where(static, 1.0, total)
    return np.where(static, 1.0, shares)
