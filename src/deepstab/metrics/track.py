"""Track jitter: how unsteadily the points of a video move, as a viewer sees it.

Points are followed one frame back and one frame forward, and the second difference of their three
positions is their acceleration, which a smooth camera hardly has. Part of the acceleration could
be taken away by moving, turning and zooming the frame, which is a similarity; what lies beyond it
(rolling shutter, parallax, wobble) is told apart. Points are followed by two trackers, neither of
which serves to stabilize, so that no method judges itself.

Convention: positions are (x, y) in px at a frame width of 640, whatever the true size, with the
origin at the center of the frame, x right and y down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.image import REFERENCE_WIDTH_PX, Image
from deepstab.metrics import trackers

Floats: TypeAlias = NDArray[np.float64]
Complexes: TypeAlias = NDArray[np.complex128]

MIN_TRACKS = 10
"""Frames with fewer tracks do not count: there is a cut, or nothing to follow."""

# Robust fit: steps, and the residual, in medians, at which a track counts a quarter.
_REWEIGHTINGS = 6
_INLIER_MEDIANS = 1.5
_TINY = 1e-9

# A bent theta is inverted by going back and forth so often; it bends by a few pixels.
_UNBENDINGS = 4


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points of a video, each followed over three frames in a row.

    Attributes:
        frame: (num,) number of the middle frame, ascending.
        positions_px: (num, 3, 2) positions in the frame before, the middle frame and the frame
            after; px at width 640 about the center.
        height_px: height of the frame where its width is 640.
        num_frames: frames of the video.
    """

    frame: NDArray[np.int64]
    positions_px: Floats
    height_px: float
    num_frames: int


@dataclass(frozen=True)
class TrackJitter:
    """How unsteadily the points of a video move, px at width 640.

    Each figure is the median length over the tracks of a frame, RMS over the frames; all are NaN
    where no frame has enough tracks.

    Attributes:
        jitter_px: of the tracks' accelerations.
        beyond_similarity_px: of what is left of the accelerations when the similarity field that
            fits those of the frame best is taken out.
        beyond_affine_px: the same with an affine field.
        beyond_quadratic_px: the same with a field of polynomials of second degree.
        num_frames: frames that counted.
        num_left_out: frames with fewer than 10 tracks, which did not; the first and the last frame
            of a video have no acceleration and belong to neither.
    """

    jitter_px: float
    beyond_similarity_px: float
    beyond_affine_px: float
    beyond_quadratic_px: float
    num_frames: int
    num_left_out: int


def find_tracks(frames: Iterable[Image]) -> dict[str, Tracks]:
    """Follow the points of a video with both trackers, streaming.

    Args:
        frames: (height, width, 3) uint8 RGB, all of one size; three are held at a time, shrunk.

    Returns:
        The tracks of each tracker. `lucas-kanade` follows corners through image pyramids; `dis`
        carries the points of a grid, where there is texture, by dense flow.

    Raises:
        ValueError: fewer than 3 frames, a frame of another shape, or not uint8 RGB.

    Source: Shi and Tomasi 1994; Lucas-Kanade (Bouguet 2000); forward-backward check (Kalal et al.
    2010); Fast Optical Flow using Dense Inverse Search (Kroeger et al. 2016).
    """
    followers: dict[str, trackers.LucasKanade | trackers.DenseInverseSearch] = {
        "lucas-kanade": trackers.LucasKanade(),
        "dis": trackers.DenseInverseSearch(),
    }
    found: dict[str, list[Floats]] = {name: [] for name in followers}
    shape: tuple[int, ...] = ()
    num_frames = 0
    for frame in frames:
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.shape != shape or shape[2:] != (3,):
            raise ValueError(f"frames must be {shape} uint8 RGB, got {frame.shape} {frame.dtype}")
        gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        gray = trackers.resized(gray, REFERENCE_WIDTH_PX)
        num_frames += 1
        for name, followed in found.items():
            positions = followers[name].follow(gray)
            if positions is not None:
                followed.append(positions)
    if num_frames < 3:
        raise ValueError(f"tracks need at least 3 frames, got {num_frames}")
    height_px = REFERENCE_WIDTH_PX * shape[0] / shape[1]
    return {
        name: Tracks(
            frame=np.repeat(np.arange(1, num_frames - 1), [len(part) for part in followed]),
            positions_px=np.concatenate(followed) * [REFERENCE_WIDTH_PX, height_px],
            height_px=height_px,
            num_frames=num_frames,
        )
        for name, followed in found.items()
    }


def correct_tracks(tracks: Tracks, thetas: Floats) -> Tracks:
    """Where the tracks of a video are once its frames are corrected, without rendering them.

    Points that the corrected frame no longer shows are left out.

    Args:
        tracks: of the video as filmed.
        thetas: (num_frames, 2, 3), output -> input, see `deepstab.geometry`, or bent,
            (num_frames, 2, 6), with further columns for x^2, xy and y^2; the points go the other
            way.

    Raises:
        ValueError: another number of thetas than of frames.
    """
    if thetas.shape not in ((tracks.num_frames, 2, 3), (tracks.num_frames, 2, 6)):
        raise ValueError(
            f"thetas must be ({tracks.num_frames}, 2, 3 or 6), one for each frame, got "
            f"{thetas.shape}"
        )
    half_size = np.array([REFERENCE_WIDTH_PX, tracks.height_px]) / 2
    moments = tracks.frame[:, None] + [-1, 0, 1]
    back = np.linalg.inv(thetas[..., :2])[moments]
    filmed = tracks.positions_px / half_size
    straight = filmed - thetas[moments, :, 2]
    shown = np.einsum("tkij,tkj->tki", back, straight)
    if thetas.shape[-1] > 3:
        for _ in range(_UNBENDINGS):
            x, y = shown[..., 0], shown[..., 1]
            squares = np.stack([x * x, x * y, y * y], axis=-1)
            bent = np.einsum("tkij,tkj->tki", thetas[moments, :, 3:], squares)
            shown = np.einsum("tkij,tkj->tki", back, straight - bent)
    visible = (np.abs(shown) <= 1).all(axis=(1, 2))
    return replace(tracks, frame=tracks.frame[visible], positions_px=(shown * half_size)[visible])


def measure_tracks(tracks: Tracks) -> TrackJitter:
    """Measure how unsteadily tracks move.

    For a video that moves by `x(t) = A sin(w t)` the jitter is `A * (2 - 2 cos w) / sqrt(2)`; a
    steady pan gives 0.

    Source: robust fit by iteratively reweighted least squares (Geman and McClure 1987), its scale
    1.5 times the median of the residuals.
    """
    _, starts, counts = np.unique(tracks.frame, return_index=True, return_counts=True)
    starts, counts = starts[counts >= MIN_TRACKS], counts[counts >= MIN_TRACKS]
    num_left_out = tracks.num_frames - 2 - len(starts)
    if not len(starts):
        return TrackJitter(np.nan, np.nan, np.nan, np.nan, 0, num_left_out)
    # Frames are rows, padded at the end to the length of the longest.
    column = np.arange(counts.max())
    present = column < counts[:, None]
    index = np.where(present, starts[:, None] + column, starts[:, None])
    before, middle, after = np.moveaxis(tracks.positions_px @ [1, 1j], 1, 0)
    acceleration = (before - 2 * middle + after)[index]
    z = middle[index] / (REFERENCE_WIDTH_PX / 2)
    x, y, one = z.real, z.imag, np.ones(z.shape)

    def over_frames(lengths: Floats) -> float:
        return float(np.sqrt(np.mean(_median(lengths, present) ** 2)))

    def beyond(*basis: Floats | Complexes) -> float:
        return over_frames(_misfit(np.stack(basis, axis=-1).astype(complex), acceleration, present))

    return TrackJitter(
        jitter_px=over_frames(np.abs(acceleration)),
        beyond_similarity_px=beyond(one, z),
        beyond_affine_px=beyond(one, x, y),
        beyond_quadratic_px=beyond(one, x, y, x * x, x * y, y * y),
        num_frames=len(starts),
        num_left_out=num_left_out,
    )


def track_jitter(frames: Iterable[Image]) -> dict[str, TrackJitter]:
    """Measure a video with each of the trackers of `find_tracks`, whose arguments these are."""
    return {name: measure_tracks(tracks) for name, tracks in find_tracks(frames).items()}


def _misfit(basis: Complexes, acceleration: Complexes, present: NDArray[np.bool_]) -> Floats:
    """What a field leaves of accelerations, fitted robustly in each frame.

    Args:
        basis: (frames, tracks, fields), each with a complex unknown. A similarity is a + b z; with
            real fields x and y come apart, and the two share the weights of their tracks.
        acceleration: (frames, tracks), x + iy.
        present: (frames, tracks), where there is a track.

    Returns:
        (frames, tracks), lengths.
    """
    damping = _TINY * np.eye(basis.shape[-1])
    weight = present.astype(float)
    length = np.abs(acceleration)
    for _ in range(_REWEIGHTINGS):
        weighted = np.conj(basis * weight[..., None]).swapaxes(1, 2)
        solution = np.linalg.solve(weighted @ basis + damping, weighted @ acceleration[..., None])
        length = np.abs(acceleration - (basis @ solution)[..., 0])
        scale = _INLIER_MEDIANS * _median(length, present) + _TINY
        weight = present / (1 + (length / scale[:, None]) ** 2) ** 2
    return length


def _median(values: Floats, present: NDArray[np.bool_]) -> Floats:
    # Of each row, over what is present; NumPy's own of masked arrays is many times slower.
    ordered = np.sort(np.where(present, values, np.inf), axis=1)
    counts = present.sum(axis=1)
    rows = np.arange(len(values))
    return (ordered[rows, (counts - 1) // 2] + ordered[rows, counts // 2]) / 2
