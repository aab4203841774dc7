"""A camera that shakes along a known path: the path, the frames it sees, and the true motion.

Convention: a similarity z -> factor z + shift acts on points z = x + iy in px from the center of
the frame. The view S_t of a frame goes from the shaken frame to the clean one; the motion M_t of
a frame goes from frame t to frame t - 1, as everywhere (see `deepstab.trajectory`). With the
clean clip's own motion O_t, what the shaken camera does is M_t = S_{t-1}^-1 o O_t o S_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import Image
from deepstab.pixels import pixels_to_theta

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Size = tuple[int, int]  # width, height, px

_BAND_HZ = (1.0, 12.0)
_WAVES_PER_SIGNAL = 8
# Moments at which a rolling shutter's view is drawn; odd, so that one of them is the middle row's.
_MOMENTS_PER_READOUT = 11


@dataclass(frozen=True)
class Similarity:
    """Similarities z -> factor z + shift; where one is unknown, both numbers are NaN."""

    factor: Complexes
    shift: Complexes

    def __len__(self) -> int:
        return len(self.factor)

    def __getitem__(self, index: int | slice | NDArray[np.intp] | tuple[slice, int]) -> Similarity:
        return Similarity(self.factor[index], self.shift[index])

    def __matmul__(self, inner: Similarity) -> Similarity:
        """The map z -> self(inner(z))."""
        return Similarity(self.factor * inner.factor, self.factor * inner.shift + self.shift)

    def inverse(self) -> Similarity:
        """The map that undoes this one."""
        return Similarity(1 / self.factor, -self.shift / self.factor)

    def matrix(self, size: Size, source: Size) -> Floats:
        """Matrices (..., 2, 3) from px of a frame of one size to px of a source of another."""
        shift = self.shift + _center(source) - self.factor * _center(size)
        x = np.stack([self.factor.real, -self.factor.imag, shift.real], axis=-1)
        y = np.stack([self.factor.imag, self.factor.real, shift.imag], axis=-1)
        return np.stack([x, y], axis=-2)

    def isotropic(self, size: Size) -> Floats:
        """The four numbers (..., 4) of `deepstab.geometry.similarity_to_theta`."""
        shift = self.shift * (2 / math.sqrt(size[0] * size[1]))
        turn = [np.angle(self.factor), np.log(np.abs(self.factor))]
        return np.stack([shift.real, shift.imag, *turn], axis=-1)


def standing_still(num_frames: int) -> Similarity:
    """Motions that are all the identity."""
    return Similarity(np.ones(num_frames, complex), np.zeros(num_frames, complex))


@dataclass(frozen=True)
class Shake:
    """The views of a shaking camera.

    Attributes:
        views: similarities (num_frames, moments) from the shaken to the clean frame, at moments
            spread evenly over the time in which the rows of a frame are read.
        readout: that time as a share of the time between frames; 0 reads all rows at once.
    """

    views: Similarity
    readout: float

    @property
    def middle(self) -> Similarity:
        """The views of the middle row, (num_frames,): what is called the view of the frame."""
        return self.views[:, self.views.factor.shape[1] // 2]

    def velocity_px(self) -> Complexes:
        """How fast the view moves, px of the shaken frame per frame, (num_frames,)."""
        middle = self.middle
        steps = np.diff(middle.shift) / np.abs(middle.factor[:-1])
        return np.append(steps, steps[-1:])


@dataclass(frozen=True)
class ShakeSize:
    """How strong a shake is.

    Attributes:
        amplitude: standard deviation of the shift, fraction of the frame's width.
        readout: time in which the rows are read, as a share of the time between frames.
        scale: px of the clean frame for each px of the shaken one, without the shake.
    """

    amplitude: float
    readout: float
    scale: float


def room_for(amplitude: float) -> float:
    """How much of a clean frame may be in view, so that a shake hardly ever leaves it."""
    return 0.82 - 2.2 * amplitude


def still_view(scale: float) -> Similarity:
    """The view (1,) of a camera that does not shake."""
    return Similarity(np.array([scale + 0j]), np.zeros(1, complex))


def draw_shake(
    times_s: Floats, *, frame_rate: float, width: int, size: ShakeSize, rng: np.random.Generator
) -> Shake:
    """Draw a band-limited shake in shift, roll and slight zoom.

    Args:
        times_s: when each frame is filmed, (num_frames,).
        frame_rate: frames/s.
        width: of the shaken frame, px.
        size: how strong it is.
        rng: source of all randomness.
    """
    band = (_BAND_HZ[0], min(_BAND_HZ[1], 0.45 * frame_rate))
    roll, zoom = float(rng.uniform(0.1, 0.6)), float(rng.uniform(0, 0.15))
    offsets = np.zeros(1)
    if size.readout:
        offsets = np.linspace(-0.5, 0.5, _MOMENTS_PER_READOUT) * size.readout / frame_rate
    moments = times_s[:, None] + offsets
    x, y, angle, log_zoom = (
        size.amplitude * reach * waves(moments, band, rng) for reach in (width, width, roll, zoom)
    )
    factor = np.asarray(size.scale * np.exp(log_zoom + 1j * angle), complex)
    shift = np.asarray(size.scale * (x + 1j * y), complex)
    return Shake(Similarity(factor, shift), size.readout)


def waves(times_s: Floats, band_hz: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A signal of unit RMS made of sinusoids in a band, amplitude falling with frequency."""
    low, high = np.log(band_hz)
    frequencies = np.exp(rng.uniform(low, high, _WAVES_PER_SIGNAL))
    phases = rng.uniform(0, 2 * np.pi, _WAVES_PER_SIGNAL)
    amplitudes = rng.uniform(0.3, 1, _WAVES_PER_SIGNAL) / np.sqrt(frequencies)
    amplitudes *= np.sqrt(2 / np.sum(amplitudes**2))
    signal: Floats = np.sin(2 * np.pi * frequencies * times_s[..., None] + phases) @ amplitudes
    return signal


def see(clean: Image, views: Similarity, size: Size) -> NDArray[np.float32]:
    """What the camera sees of a clean frame.

    Args:
        clean: (height, width, 3) uint8; beyond its border it is mirrored.
        views: (moments,), from the shaken to the clean frame, from the first row to the last.
        size: of the shaken frame.

    Returns:
        (height, width, 3) float32.
    """
    source = (clean.shape[1], clean.shape[0])
    if len(views) == 1:
        seen = cv2.warpAffine(
            clean,
            views[0].matrix(size, source),
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return seen.astype(np.float32)
    rows = np.arange(size[1])
    moments = np.arange(len(views))
    at = rows * (len(views) - 1) / (size[1] - 1)
    factor, shift = (np.interp(at, moments, part) for part in (views.factor, views.shift))
    points = np.arange(size[0]) + 1j * rows[:, None] - _center(size)
    points = factor[:, None] * points + shift[:, None] + _center(source)
    seen = cv2.remap(
        clean,
        points.real.astype(np.float32),
        points.imag.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return seen.astype(np.float32)


def own_between(own: Similarity, shown: NDArray[np.intp]) -> Similarity:
    """The own motion between the frames that are shown.

    Args:
        own: motion of every clean frame to the one before it, (num_clean,).
        shown: which clean frame each frame shows, (num_frames,), never going back: a number that
            comes twice is a repeated frame, one that is skipped a dropped one.

    Returns:
        (num_frames,): the motion to the frame shown before; the first is the identity.
    """
    between = standing_still(len(shown))
    for index in range(1, len(shown)):
        motion = between[index]
        for step in range(shown[index - 1] + 1, shown[index] + 1):
            motion = motion @ own[step]
        between.factor[index], between.shift[index] = motion.factor, motion.shift
    return between


def true_motion(shake: Shake, own: Similarity, size: Size) -> NDArray[np.float32]:
    """The motion of the shaken camera from each frame to the one before it.

    Args:
        shake: the views.
        own: the clean clip's own motion between the same frames, (num_frames,).
        size: of the shaken frame.

    Returns:
        (num_frames, 4), isotropic; the first row is 0, and NaN where the own motion is unknown.
    """
    views = shake.middle
    motion = (views[:-1].inverse() @ own[1:] @ views[1:]).isotropic(size)
    return np.concatenate([np.zeros((1, 4)), motion]).astype(np.float32)


def true_correction(shake: Shake, size: Size, scale: float) -> Floats:
    """Thetas (num_frames, 2, 3) from the unshaken view of a frame to the shaken frame."""
    matrices = (shake.middle.inverse() @ still_view(scale)).matrix(size, size)
    return pixels_to_theta(matrices, width=size[0], height=size[1])


def _center(size: Size) -> complex:
    return complex((size[0] - 1) / 2, (size[1] - 1) / 2)
