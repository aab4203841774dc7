"""The corrections of a whole video: the smoothest camera path that the crop allows.

Convention: similarities p -> a p + b are pairs of complex numbers in isotropic coordinates
(x + iy, see `deepstab.geometry`); a correction maps the stabilized frame to the frame as filmed.
Motions are as in `deepstab.trajectory`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deepstab.image import REFERENCE_WIDTH_PX
from deepstab.stabilization.solver import excess
from deepstab.stabilization.wobble import border_points, displacement

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

# Share of the room that roll may use up; zoom as much; what is left is for the wobble, and what
# that does not need, for the translation.
_TURN_SHARE = 0.4
WOBBLE_SHARE = 0.2
"""Share of the room that a wobble may use up, see `deepstab.stabilization.wobble.held_back`."""

# Of the room: so far the translation may go where roll, zoom and wobble fill it.
_LEAST_ROOM = 0.01
# Shorter scenes have no acceleration to take out.
_MIN_FRAMES = 3
# Nothing in a video is faster than back and forth from frame to frame.
_MIN_PERIOD = 2.0
# Of a chosen crop: each percent of it must take away about a ninth of the jitter; jitter of so many
# px at width 640 is hardly seen, and taking it away counts half; crops are tried in such steps.
_CROP_PRICE = 11.0
_SEEN_PX = 0.1
_CROP_STEP = 0.01
# Where larger crops have cost so much more than the best, the search ends.
_CROP_GIVE_UP = 0.3
# The wobble is looked at where the border comes to lie, which depends on the scale a little.
_VISIBLE_ROUNDS = 3
_TINY = 1e-9
# Arrays of the border's points of more frames than these would leave the processor's cache.
_FRAMES_AT_ONCE = 1024


@dataclass(frozen=True)
class Plan:
    """Corrections of a video, each p -> turn p + shift, and the zoom that hides the borders.

    `turn` and `shift` are (num_frames,) complex; `zoom` is the scale, at most 1, of the part of
    the frame that is shown. A wobble may follow them, see `deepstab.stabilization.wobble.bend`.
    """

    turn: Complexes
    shift: Complexes
    zoom: float

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
    motion: Floats,
    wobble: Floats,
    *,
    aspect: float,
    period: float,
    least_visible: float,
    cuts: list[int],
) -> Plan:
    """Take out of a camera path what is faster than a period, as far as the frame allows.

    Where a correction and its wobble would show what was not filmed, the path follows the camera
    just so far that they do not. Scenes are planned apart.

    Args:
        motion: (num_frames, 4), of each frame to the previous; the first of a scene is ignored.
        wobble: (num_frames, 6, 2), what the corrections go on through, see
            `deepstab.stabilization.wobble.bend`.
        aspect: width / height of the video.
        period: movements of this period, frames, are halved; slower ones are kept, faster ones
            taken out; 2, the fastest there is, or less changes nothing.
        least_visible: side of the visible part over the frame's, in (0, 1].
        cuts: first frames of the scenes after the first, ascending.

    Returns:
        The plan; its zoom is one for all scenes, and at least `least_visible` if the wobble keeps
        to its share of the room.
    """
    bounds = [0, *cuts, len(motion)]
    parts = [
        _plan_scene(motion[first:last], wobble[first:last], aspect, period, least_visible)
        for first, last in pairwise(bounds)
    ]
    turn, shift = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Plan(turn, shift, float(visible_part(turn, shift, wobble, aspect).min()))


def choose_plan(
    motion: Floats,
    wobble: Floats,
    *,
    aspect: float,
    period: float,
    most_cropped: float,
    cuts: list[int],
) -> Plan:
    """The plan whose crop is worth what it takes out: little for little shake, more for more.

    Of the plans of all crops it is the one that makes ln(jitter) + 11 crop least, jitter being the
    RMS second difference of the planned path and 0.1 px at width 640, added as squares.

    Args:
        motion: as of `plan_corrections`.
        wobble: as of `plan_corrections`.
        aspect: width / height of the video.
        period: as of `plan_corrections`.
        most_cropped: the largest crop, a share of the frame's side, in (0, 1).
        cuts: first frames of the scenes after the first, ascending.
    """
    best, least_cost = None, math.inf
    for crop in np.arange(most_cropped, 0, -_CROP_STEP)[::-1]:
        plan = plan_corrections(
            motion, wobble, aspect=aspect, period=period, least_visible=1 - crop, cuts=cuts
        )
        left = path_px(stabilized_motion(motion, plan), cuts=cuts, aspect=aspect)
        squares = np.sum(np.diff(left[:, :2], n=2, axis=0) ** 2, axis=1)
        seen = math.hypot(_SEEN_PX, math.sqrt(squares.mean() if len(squares) else 0))
        cost = math.log(seen) + _CROP_PRICE * (1 - plan.zoom)
        if cost < least_cost:
            best, least_cost = plan, cost
        elif cost > least_cost + _CROP_GIVE_UP or plan.zoom > 1 - crop + _CROP_STEP:
            break
    assert best is not None
    # How far a bent side reaches is known to about a thousandth of the frame, half a pixel.
    return replace(best, zoom=max(best.zoom, 1 - most_cropped))


def visible_part(turn: Complexes, shift: Complexes, wobble: Floats, aspect: float) -> Floats:
    """Per frame, the largest scale, at most 1, at which the corrected frame shows no border.

    Args:
        turn: (num_frames,).
        shift: (num_frames,).
        wobble: (num_frames, 6, 2).
        aspect: width / height.
    """
    parts = [
        _visible_part(turn[part], shift[part], wobble[part], aspect) for part in _parts(len(turn))
    ]
    return np.concatenate(parts)


def _visible_part(turn: Complexes, shift: Complexes, wobble: Floats, aspect: float) -> Floats:
    border = turn[:, None] * border_points(aspect)
    visible = np.ones(len(turn))
    for _ in range(_VISIBLE_ROUNDS):
        corrected = visible[:, None] * border + shift[:, None]
        offset = shift[:, None] + displacement(wobble, corrected)
        scales = [
            np.maximum(half - np.sign(to) * by, 0) / np.maximum(np.abs(to), _TINY)
            for half, to, by in (
                (np.sqrt(aspect), border.real, offset.real),
                (1 / np.sqrt(aspect), border.imag, offset.imag),
            )
        ]
        visible = np.minimum(np.min(scales, axis=(0, 2)), 1)
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
    motion[:, :2] *= REFERENCE_WIDTH_PX / 2 / np.sqrt(aspect)
    path: Floats = np.cumsum(motion, axis=0)
    return path


def _plan_scene(
    motion: Floats, wobble: Floats, aspect: float, period: float, least_visible: float
) -> tuple[Complexes, Complexes]:
    """Roll and zoom first; the shifts then in the axes of the stabilized camera, so that roll
    jitter does not leak into the translation."""
    num_frames = len(motion)
    if num_frames < _MIN_FRAMES or period <= _MIN_PERIOD or least_visible >= 1:
        return np.ones(num_frames, complex), np.zeros(num_frames, complex)
    motion = np.concatenate([np.zeros((1, 4)), motion[1:]])
    half = np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    room = _TURN_SHARE * (1 - least_visible)
    turn_limits = np.broadcast_to([room * half.min() / half.max(), room], (num_frames, 2))
    axes = np.broadcast_to(np.eye(2), (num_frames, 2, 2))
    turned = excess(
        np.cumsum(motion[:, 2:], axis=0), axes, -turn_limits, turn_limits, period=period
    )
    turn = np.exp(-(turned[:, 1] + 1j * turned[:, 0]))
    steps = (motion[:, 0] + 1j * motion[:, 1]) / np.concatenate([[1], turn[:-1]])
    position = np.cumsum(steps)
    limits = [
        _shift_limits(turn[part], wobble[part], aspect, least_visible)
        for part in _parts(num_frames)
    ]
    lower, upper = (np.concatenate(column) for column in zip(*limits, strict=True))
    # What is taken away from the path is, seen from the corrected frame, minus the shift.
    left = excess(
        np.stack([position.real, position.imag], axis=1),
        np.stack([turn.real, -turn.imag, turn.imag, turn.real], axis=1).reshape(-1, 2, 2),
        -upper,
        -lower,
        period=period,
    )
    return turn, -turn * (left[:, 0] + 1j * left[:, 1])


def _shift_limits(
    turn: Complexes, wobble: Floats, aspect: float, least_visible: float
) -> tuple[Floats, Floats]:
    """How far, (num_frames, 2) each, a corrected frame may be shifted left or up, right or down."""
    half = np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    border = turn[:, None] * border_points(aspect)
    # Shifted to its limit, a side comes to lie between its place at rest and the frame's own side.
    bent = np.concatenate(
        [
            least_visible * border + displacement(wobble, scale * border)
            for scale in (least_visible, 1.0)
        ],
        axis=1,
    )
    bent = np.stack([bent.real, bent.imag], axis=-1)
    least = _LEAST_ROOM * (1 - least_visible) * half
    lower = np.minimum(-half - bent.min(axis=1), -least)
    return lower, np.maximum(half - bent.max(axis=1), least)


def _parts(num_frames: int) -> list[slice]:
    starts = range(0, num_frames, _FRAMES_AT_ONCE)
    return [slice(start, start + _FRAMES_AT_ONCE) for start in starts]
