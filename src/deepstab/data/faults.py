"""What a camera does to a picture besides shaking: blur, bad light, noise, compression, stutter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.config import FaultParams
from deepstab.data.shake import Floats, waves
from deepstab.image import Image

# Ranges that faults are drawn from, each the range of what is met in real video.
_READOUT = (0.1, 0.8)  # share of the time between frames
_SHUTTER = (0.1, 0.5)  # share of the time between frames
_GAMMA = (0.5, 1.0)
_NOISE_STD, _LOW_LIGHT_NOISE_STD = (0.0, 3.0), (2.0, 8.0)  # of a middle gray, of 255
_FLICKER, _JUMP = (0.02, 0.12), (0.1, 0.35)  # share of the brightness
_CRF, _CLEAN_CRF = (26, 38), 18
_SLOW_FRAMES_PER_S = 10


@dataclass(frozen=True)
class Faults:
    """What is wrong with one recording.

    Attributes:
        readout: time in which the rows are read, as a share of the time between frames.
        shutter: time for which each frame is exposed, as a share of the time between frames.
        gamma: below 1 the picture is dark.
        gains: brightness of every frame, (num_frames,).
        noise_std: standard deviation of the noise of a middle gray, of 255.
        crf: how strongly the video is compressed, constant rate factor of x264.
        occluded: whether something near moves through the picture.
    """

    readout: float
    shutter: float
    gamma: float
    gains: Floats
    noise_std: float
    crf: int
    occluded: bool


def draw_faults(params: FaultParams, *, times_s: Floats, rng: np.random.Generator) -> Faults:
    """Draw the faults of one recording.

    Args:
        params: how often each occurs.
        times_s: when each frame is filmed, (num_frames,).
        rng: source of all randomness.
    """
    dark = rng.random() < params.low_light
    return Faults(
        readout=_maybe(params.rolling_shutter, _READOUT, rng),
        shutter=_maybe(params.blur, _SHUTTER, rng),
        gamma=float(rng.uniform(*_GAMMA)) if dark else 1.0,
        gains=_draw_gains(params.exposure, times_s, rng),
        noise_std=float(rng.uniform(*(_LOW_LIGHT_NOISE_STD if dark else _NOISE_STD))),
        crf=int(rng.integers(_CRF[0], _CRF[1] + 1))
        if rng.random() < params.compression
        else _CLEAN_CRF,
        occluded=bool(rng.random() < params.occluder),
    )


def draw_stride(params: FaultParams, frame_rate: float, rng: np.random.Generator) -> int:
    """How many frames of a clip go to one of the recording: 1, or as many as give 10 frames/s."""
    slow = rng.random() < params.slow
    return max(1, round(frame_rate / _SLOW_FRAMES_PER_S)) if slow else 1


def draw_shown(params: FaultParams, num_frames: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Which clean frame each frame shows, (num_frames,); one is repeated or dropped in some."""
    shown = np.arange(num_frames)
    if rng.random() < params.stutter:
        shown[int(rng.integers(1, num_frames)) :] += rng.choice([-1, 1])
    return shown


def lit(frame: NDArray[np.float32], faults: Faults, index: int) -> NDArray[np.float32]:
    """A frame in the light of one moment of the recording."""
    gain = np.float32(faults.gains[index])
    if faults.gamma == 1:
        return frame * gain
    exponent = np.float32(1 / faults.gamma)
    # What overshoots below black after resampling is black.
    light = np.maximum(frame, 0)
    return np.power(light, exponent) * gain * np.float32(255) ** (1 - exponent)


def noisy(
    frame: NDArray[np.float32], faults: Faults, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A frame with the sensor's noise: as of counted photons, its variance grows with the light."""
    std = np.float32(faults.noise_std) * np.sqrt(np.maximum(frame, 4) / 128)
    noise: NDArray[np.float32] = frame + std * rng.standard_normal(frame.shape, dtype=np.float32)
    return noise


def motion_blur(frame: NDArray[np.float32], path_px: complex) -> NDArray[np.float32]:
    """Blur along a straight path, centered: the image does not shift."""
    length = abs(path_px)
    if length < 1:
        return frame
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    for point in np.linspace(-0.5, 0.5, 4 * side) * path_px:
        kernel[int(np.rint(side // 2 + point.imag)), int(np.rint(side // 2 + point.real))] += 1
    return np.asarray(cv2.filter2D(frame, -1, kernel / kernel.sum()), np.float32)


def to_image(frame: NDArray[np.float32]) -> Image:
    """A frame in 8 bits."""
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def _maybe(share: float, bounds: tuple[float, float], rng: np.random.Generator) -> float:
    value = float(rng.uniform(*bounds))
    return value if rng.random() < share else 0.0


def _draw_gains(share: float, times_s: Floats, rng: np.random.Generator) -> Floats:
    """Brightness that flickers, or jumps once."""
    if rng.random() >= share:
        return np.ones_like(times_s)
    if rng.random() < 0.5:
        return 1 + rng.uniform(*_FLICKER) * waves(times_s, (0.1, 6.0), rng)
    jump = rng.uniform(*_JUMP) * rng.choice([-1, 1])
    return np.where(np.arange(len(times_s)) < rng.integers(1, len(times_s)), 1.0, 1 + jump)
