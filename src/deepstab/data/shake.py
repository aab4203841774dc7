"""Random paths of a camera: the smooth one that is wanted, and the shake that is not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepstab.config import FlightParams

Floats = NDArray[np.float64]

_SHAKE_BAND_HZ = (1.0, 12.0)
_WAVES_PER_SIGNAL = 8


def waves(times_s: Floats, band_hz: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A signal of unit RMS made of sinusoids in a band, amplitude falling with frequency."""
    frequencies = np.exp(rng.uniform(math.log(band_hz[0]), math.log(band_hz[1]), _WAVES_PER_SIGNAL))
    phases = rng.uniform(0, 2 * np.pi, _WAVES_PER_SIGNAL)
    amplitudes = rng.uniform(0.3, 1, _WAVES_PER_SIGNAL) / np.sqrt(frequencies)
    amplitudes *= np.sqrt(2 / np.sum(amplitudes**2))
    angles = 2 * np.pi * frequencies * times_s[:, None] + phases
    signal: Floats = np.sin(angles) @ amplitudes
    return signal


def smooth_path(times_s: Floats, width: int, rng: np.random.Generator) -> Floats:
    """A path that drifts and sways slowly: (num_frames, 4), x, y (px), roll (rad), log zoom."""
    drift = rng.normal(0, [0.10 * width, 0.06 * width, 0.03, 0.02])  # per second
    slow_band = (0.03, 0.25)
    sway = np.stack([waves(times_s, slow_band, rng) for _ in range(4)], axis=1)
    amplitude = rng.uniform(0, [0.04 * width, 0.03 * width, 0.04, 0.04])
    return drift * times_s[:, None] + amplitude * sway


def draw_shake(
    times_s: Floats, params: FlightParams, amplitude: float, rng: np.random.Generator
) -> Floats:
    """Band-limited shake.

    Args:
        times_s: (num_frames,).
        params: the flights section; gives the frame's width and rate.
        amplitude: standard deviation of the shift, fraction of the width.
        rng: source of all randomness.

    Returns:
        (num_frames, 4): x, y (px), roll (rad), log zoom.
    """
    band = (_SHAKE_BAND_HZ[0], min(_SHAKE_BAND_HZ[1], 0.45 * params.frame_rate))
    signals = np.stack([waves(times_s, band, rng) for _ in range(4)], axis=1)
    roll_and_zoom = float(rng.uniform(0.1, 0.6)), float(rng.uniform(0.0, 0.15))
    scale = np.array([params.width, params.width, *roll_and_zoom])
    return amplitude * scale * signals
