"""The corrections of a whole video: the smoothest camera path that the crop allows.

Convention: similarities p -> a p + b are pairs of complex numbers in isotropic coordinates
(x + iy, see `deepstab.geometry`); a correction maps the stabilized frame to the frame as filmed.
Motions are as in `deepstab.trajectory`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from deepstab.image import REFERENCE_WIDTH_PX

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

# Share of the room that roll may use up; zoom as much; what is left is for the translation.
_TURN_SHARE = 0.4
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
# Keeps the solver's last digits inside the limits.
_INSIDE = 1 - 1e-6


@dataclass(frozen=True)
class Plan:
    """Corrections of a video, each p -> turn p + shift, and the zoom that hides the borders.

    `turn` and `shift` are (num_frames,) complex; `zoom` is the scale, at most 1, of the part of
    the frame that is shown.
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
    motion: Floats, *, aspect: float, period: float, least_visible: float, cuts: list[int]
) -> Plan:
    """Take out of a camera path what is faster than a period, as far as the frame allows.

    Where a correction would show what was not filmed, the path follows the camera just so far that
    it does not. Scenes are planned apart.

    Args:
        motion: (num_frames, 4), of each frame to the previous; the first of a scene is ignored.
        aspect: width / height of the video.
        period: movements of this period, frames, are halved; slower ones are kept, faster ones
            taken out; 2, the fastest there is, or less changes nothing.
        least_visible: side of the visible part over the frame's, in (0, 1].
        cuts: first frames of the scenes after the first, ascending.

    Returns:
        The plan; its zoom is one for all scenes and at least `least_visible`.
    """
    bounds = [0, *cuts, len(motion)]
    parts = [
        _plan_scene(motion[first:last], aspect, period, least_visible)
        for first, last in pairwise(bounds)
    ]
    turn, shift = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Plan(turn, shift, float(visible_part(turn, shift, aspect).min()))


def choose_plan(
    motion: Floats, *, aspect: float, period: float, most_cropped: float, cuts: list[int]
) -> Plan:
    """The plan whose crop is worth what it takes out: little for little shake, more for more.

    Of the plans of all crops it is the one that makes ln(jitter) + 11 crop least, jitter being the
    RMS second difference of the planned path and 0.1 px at width 640, added as squares.

    Args:
        motion: as of `plan_corrections`.
        aspect: width / height of the video.
        period: as of `plan_corrections`.
        most_cropped: the largest crop, a share of the frame's side, in (0, 1).
        cuts: first frames of the scenes after the first, ascending.
    """
    best, least_cost = None, math.inf
    for crop in np.arange(most_cropped, 0, -_CROP_STEP)[::-1]:
        plan = plan_corrections(
            motion, aspect=aspect, period=period, least_visible=1 - crop, cuts=cuts
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
    return best


def excess(path: Floats, axes: Floats, limits: Floats, *, period: float) -> Floats:
    """What to take away from a path to make it smooth, within limits.

    Of all r with |axes_t r_t| <= limits_t it is the one that makes
    sum |second difference of (path - r)|^2 + w^4 sum |r|^2 least, w = 2 pi / period: without
    limits a zero-phase low-pass of the path, 1 / (1 + (frequency / w)^4).

    Args:
        path: (num_frames, 2).
        axes: (num_frames, 2, 2), of full rank.
        limits: (num_frames, 2), positive.
        period: frames.

    Returns:
        (num_frames, 2).

    Source: the idea of M. Grundmann et al., Auto-directed video stabilization with robust L1
        optimal camera paths, CVPR 2011, with squares instead of absolute values.
    """
    num_frames = len(path)
    unit = limits.mean()  # The solver's tolerances are for numbers around 1.
    second_difference = sparse.diags_array(
        [1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(num_frames - 2, num_frames)
    )
    bending = sparse.kron(second_difference.T @ second_difference, sparse.eye_array(2))
    staying = (2 * np.pi / period) ** 4 * sparse.eye_array(2 * num_frames)
    inside = sparse.bsr_array((axes, np.arange(num_frames), np.arange(num_frames + 1)))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    bounds = np.tile(_INSIDE * limits.ravel() / unit, 2)
    found = clarabel.DefaultSolver(
        sparse.triu(bending + staying, format="csc"),
        -(bending @ (path.ravel() / unit)),
        sparse.vstack([inside, -inside], format="csc"),
        bounds,
        [clarabel.NonnegativeConeT(len(bounds))],
        settings,
    ).solve()
    assert str(found.status) in ("Solved", "AlmostSolved"), found.status
    return unit * np.reshape(found.x, (num_frames, 2))


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
    motion[:, :2] *= REFERENCE_WIDTH_PX / 2 / np.sqrt(aspect)
    path: Floats = np.cumsum(motion, axis=0)
    return path


def _plan_scene(
    motion: Floats, aspect: float, period: float, least_visible: float
) -> tuple[Complexes, Complexes]:
    """Roll and zoom first; the shifts then in the axes of the stabilized camera, so that roll
    jitter does not leak into the translation."""
    num_frames = len(motion)
    if num_frames < _MIN_FRAMES or period <= _MIN_PERIOD or least_visible >= 1:
        return np.ones(num_frames, complex), np.zeros(num_frames, complex)
    motion = np.concatenate([np.zeros((1, 4)), motion[1:]])
    half = np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    room = _TURN_SHARE * (1 - least_visible)
    turned = excess(
        np.cumsum(motion[:, 2:], axis=0),
        np.broadcast_to(np.eye(2), (num_frames, 2, 2)),
        np.broadcast_to([room * half.min() / half.max(), room], (num_frames, 2)),
        period=period,
    )
    turn = np.exp(-(turned[:, 1] + 1j * turned[:, 0]))
    steps = (motion[:, 0] + 1j * motion[:, 1]) / np.concatenate([[1], turn[:-1]])
    position = np.cumsum(steps)
    corners = turn[:, None] * (half[0] * np.array([1, -1]) + 1j * half[1])
    reach = np.stack([np.abs(corners.real).max(axis=1), np.abs(corners.imag).max(axis=1)], axis=1)
    left = excess(
        np.stack([position.real, position.imag], axis=1),
        np.stack([turn.real, -turn.imag, turn.imag, turn.real], axis=1).reshape(-1, 2, 2),
        half - least_visible * reach,
        period=period,
    )
    return turn, -turn * (left[:, 0] + 1j * left[:, 1])
