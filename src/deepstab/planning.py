"""The corrections of a whole video: its camera path smoothed as far as the crop allows.

Convention: similarities p -> a p + b are pairs of complex numbers in isotropic coordinates
(x + iy, see `deepstab.geometry`); a correction maps the stabilized frame to the frame as filmed.
Motions are as in `deepstab.trajectory`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

# How far the smoothing yields, per round, where a correction would leave the frame.
_YIELD = 0.85
_ROUNDS = 80
_MIN_SIGMA = 0.3
# Frames smoothed at once: bounds the memory, whatever the length of the video.
_CHUNK = 4096


@dataclass(frozen=True)
class Plan:
    """Corrections of a video, each p -> turn p + shift, and the zoom that hides the borders.

    `turn` and `shift` are (num_frames,) complex; `zoom` is the scale, at most 1, of the part of
    the frame that is shown; `sigma` (num_frames,) is the smoothing each frame got, frames.
    """

    turn: Complexes
    shift: Complexes
    zoom: float
    sigma: Floats

    def thetas(self, aspect: float) -> Floats:
        """Thetas (num_frames, 2, 3), zoom included; aspect is width / height."""
        turn = self.turn * self.zoom
        root = np.sqrt(aspect)
        return np.stack(
            [
                np.stack([turn.real, -turn.imag / aspect, self.shift.real / root], axis=-1),
                np.stack([turn.imag * aspect, turn.real, self.shift.imag * root], axis=-1),
            ],
            axis=-2,
        )


def plan_corrections(
    motion: Floats, *, aspect: float, sigma: float, least_visible: float, cuts: list[int]
) -> Plan:
    """Smooth a camera path so far that at least a given part of every frame stays visible.

    Every frame starts with the same smoothing; where a correction would show what was not filmed,
    smoothing yields there and, gradually, around it. Scenes are smoothed apart.

    Args:
        motion: (num_frames, 4), of each frame to the previous; the first of a scene is ignored.
        aspect: width / height of the video.
        sigma: of the Gaussian, frames; 0 changes nothing.
        least_visible: side of the visible part over the frame's, in (0, 1].
        cuts: first frames of the scenes after the first, ascending.

    Returns:
        The plan; its zoom is one for all scenes and at least `least_visible`.
    """
    bounds = [0, *cuts, len(motion)]
    parts = [
        _plan_scene(motion[first:last], aspect, sigma, least_visible)
        for first, last in pairwise(bounds)
    ]
    turn, shift, sigmas = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Plan(turn, shift, float(visible_part(turn, shift, aspect).min()), sigmas)


def smooth(signal: Floats, sigma: Floats) -> Floats:
    """Gaussian-weighted local linear regression with a width of its own at every frame.

    Args:
        signal: (num_frames, channels).
        sigma: (num_frames,), frames.

    Returns:
        (num_frames, channels). Straight lines are kept up to both ends.

    Source: as `deepstab.trajectory.smoothing_matrix`.
    """
    num_frames = len(signal)
    reach = min(int(np.ceil(3 * sigma.max())) + 1, num_frames - 1)
    offset = np.arange(-reach, reach + 1)
    padded = np.pad(signal, ((reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    smoothed = np.empty_like(signal)
    for first in range(0, num_frames, _CHUNK):
        frames = np.arange(first, min(first + _CHUNK, num_frames))
        weight = np.exp(-0.5 * (offset / sigma[frames, None]) ** 2)
        source = frames[:, None] + offset
        weight *= (source >= 0) & (source < num_frames)
        s0, s1, s2 = ((weight * offset**power).sum(axis=1, keepdims=True) for power in (0, 1, 2))
        spread = s0 * s2 - s1**2
        kernel = np.where(
            spread > 1e-9, weight * (s2 - s1 * offset) / np.maximum(spread, 1e-9), weight / s0
        )
        smoothed[frames] = np.einsum("fw,fcw->fc", kernel, windows[frames])
    return smoothed


def corrections(motion: Floats, sigma: Floats) -> tuple[Complexes, Complexes]:
    """The corrections (turn, shift) that smooth a path.

    Angles and scales are summed and smoothed first; the shifts are then summed in the axes of the
    stabilized camera, so that roll jitter does not leak into the translation.

    Args:
        motion: (num_frames, 4) of one scene.
        sigma: (num_frames,), frames.
    """
    if len(motion) == 1:
        return np.ones(1, np.complex128), np.zeros(1, np.complex128)
    motion = np.concatenate([np.zeros((1, 4)), motion[1:]])
    turned = np.cumsum(motion[:, 2:], axis=0)
    excess = turned - smooth(turned, sigma)
    turn = np.exp(-(excess[:, 1] + 1j * excess[:, 0]))
    steps = (motion[:, 0] + 1j * motion[:, 1]) / np.concatenate([[1], turn[:-1]])
    position = np.cumsum(steps)
    path = np.stack([position.real, position.imag], axis=1)
    left = path - smooth(path, sigma)
    return turn, -turn * (left[:, 0] + 1j * left[:, 1])


def visible_part(turn: Complexes, shift: Complexes, aspect: float) -> Floats:
    """Per frame, the largest scale, at most 1, at which the corrected frame shows no border.

    Args:
        turn: (num_frames,).
        shift: (num_frames,).
        aspect: width / height.
    """
    half = np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    visible = np.ones(len(turn))
    for sign_x, sign_y in ((1, 1), (1, -1)):  # the other two corners are their negatives
        corner = turn * (sign_x * half[0] + 1j * sign_y * half[1])
        for reach, offset, limit in (
            (np.abs(corner.real), np.abs(shift.real), half[0]),
            (np.abs(corner.imag), np.abs(shift.imag), half[1]),
        ):
            visible = np.minimum(visible, np.maximum(limit - offset, 0) / np.maximum(reach, 1e-9))
    return visible


def stabilized_motion(motion: Floats, plan: Plan) -> Floats:
    """The motion (num_frames, 4) left between corrected frames: T_{t-1}^-1 o M_t o T_t."""
    factor = np.exp(motion[:, 3] + 1j * motion[:, 2])
    before_turn = np.concatenate([[1], plan.turn[:-1]])
    before_shift = np.concatenate([[0], plan.shift[:-1]])
    linear = factor * plan.turn / before_turn
    shift = factor * plan.shift + motion[:, 0] + 1j * motion[:, 1] - before_shift
    shift = shift / before_turn
    return np.stack([shift.real, shift.imag, np.angle(linear), np.log(np.abs(linear))], axis=1)


def path_px(motion: Floats, *, cuts: list[int], aspect: float) -> Floats:
    """Motions summed up: (num_frames, 4), x and y in px at width 640; still across cuts."""
    motion = motion.copy()
    motion[[0, *cuts]] = 0
    motion[:, :2] *= 320 / np.sqrt(aspect)
    path: Floats = np.cumsum(motion, axis=0)
    return path


def _plan_scene(
    motion: Floats, aspect: float, sigma: float, least_visible: float
) -> tuple[Complexes, Complexes, Floats]:
    num_frames = len(motion)
    # Beyond a scene's length a wider Gaussian changes nothing but costs time.
    sigmas = np.full(num_frames, min(sigma, float(num_frames)))
    if sigma <= _MIN_SIGMA:
        return np.ones(num_frames, complex), np.zeros(num_frames, complex), sigmas
    for _ in range(_ROUNDS):
        turn, shift = corrections(motion, sigmas)
        too_far = visible_part(turn, shift, aspect) < least_visible
        if not too_far.any():
            return turn, shift, sigmas
        sigmas = np.maximum(sigmas * _yielding(too_far, width=sigma), _MIN_SIGMA)
    # A path that no smoothing brings inside: what is left of each correction is scaled down.
    share = _largest_share(turn, shift, aspect, least_visible)
    return turn**share, shift * share, sigmas


def _yielding(too_far: NDArray[np.bool_], *, width: float) -> Floats:
    """Factors (num_frames,) that fall to `_YIELD` at the marked frames, gradually around them."""
    reach = min(int(3 * width), len(too_far) - 1)
    bump = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    padded = np.pad(too_far.astype(float), reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    nearest: Floats = np.array([(window * bump).max() for window in windows])
    return _YIELD**nearest


def _largest_share(turn: Complexes, shift: Complexes, aspect: float, least_visible: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(20):
        share = (low + high) / 2
        inside = visible_part(turn**share, shift * share, aspect).min() >= least_visible
        low, high = (share, high) if inside else (low, share)
    return low
