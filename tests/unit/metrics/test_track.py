"""Track jitter of points and videos whose motion is known by hand."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from skimage import data

from deepstab.metrics.track import (
    Tracks,
    correct_tracks,
    find_tracks,
    measure_tracks,
    track_jitter,
)
from deepstab.pixels import pixels_to_theta, theta_to_pixels

WIDTH, HEIGHT = 640, 360
# Jitter that a tracker sees where there is none, px at width 640; dense flow is made at half that.
NOISE_PX = {"lucas-kanade": 0.05, "dis": 0.25}
AMPLITUDE_PX, PERIOD = 2.0, 8
# RMS second difference of A sin(2 pi t / 8) over whole periods: A (2 - 2 cos(pi / 4)) / sqrt(2).
SHAKE_JITTER_PX = AMPLITUDE_PX * (2 - math.sqrt(2)) / math.sqrt(2)

Field = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def shake(num_frames: int) -> np.ndarray:
    return AMPLITUDE_PX * np.sin(2 * np.pi * np.arange(num_frames) / PERIOD)


def scattered(num: int = 60) -> np.ndarray:
    half = np.array([WIDTH, HEIGHT]) / 2
    return np.random.default_rng(0).uniform(-0.9, 0.9, (num, 2)) * half


def tracks_of(places: Callable[[int], np.ndarray], num_frames: int = 18) -> Tracks:
    """Tracks of points that are at `places(t)`, (num, 2), in frame t."""
    middles = range(1, num_frames - 1)
    parts = [np.stack([places(t - 1), places(t), places(t + 1)], axis=1) for t in middles]
    return Tracks(
        frame=np.repeat(middles, [len(part) for part in parts]),
        positions_px=np.concatenate(parts),
        height_px=HEIGHT,
        num_frames=num_frames,
    )


def bent(field: Field, num_frames: int = 18) -> Tracks:
    """Points that a field of (x, y) in half widths, in px, pulls to and fro."""
    points = scattered()
    pull = np.column_stack(field(*(points / (WIDTH / 2)).T))
    return tracks_of(lambda t: points + pull * (-1) ** t / 4, num_frames)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return cv2.resize(data.astronaut(), (900, 900), interpolation=cv2.INTER_CUBIC)


def look(photo: np.ndarray, linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The photo's content mapped by `linear @ p + shift` about the center of the view, px."""
    center = np.array([WIDTH - 1, HEIGHT - 1]) / 2
    middle = (np.array(photo.shape[1::-1]) - 1) / 2
    matrix = np.column_stack([linear, center + shift - linear @ middle])
    return cv2.warpAffine(photo, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)


def video(photo: np.ndarray, shifts: np.ndarray, linear: np.ndarray | None = None) -> list:
    linears = np.tile(np.eye(2), (len(shifts), 1, 1)) if linear is None else linear
    return [look(photo, *parts) for parts in zip(linears, shifts, strict=True)]


def sideways(xs: np.ndarray) -> np.ndarray:
    return np.stack([xs, np.zeros(len(xs))], axis=1)


def test_a_shake_is_measured_as_its_formula_says() -> None:
    points = scattered()
    path = sideways(shake(18))
    measured = measure_tracks(tracks_of(lambda t: points + path[t]))
    assert measured.jitter_px == pytest.approx(SHAKE_JITTER_PX)
    assert measured.beyond_similarity_px == pytest.approx(0, abs=1e-6)
    assert (measured.num_frames, measured.num_left_out) == (16, 0)


def test_a_pan_has_no_jitter() -> None:
    points = scattered()
    measured = measure_tracks(tracks_of(lambda t: points + np.array([7.0, -3.0]) * t))
    assert measured.jitter_px == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("field", "reached_by"),
    [
        (lambda x, y: (2 * x - 3 * y + 1, 3 * x + 2 * y), "similarity"),
        (lambda x, y: (4 * y, 0 * y), "affine"),
        (lambda x, y: (9 * y * y, 6 * x * y), "quadratic"),
        (lambda x, y: (8 * y**3, 8 * x**3), "nothing"),
    ],
)
def test_each_field_takes_out_what_it_can_reach_and_no_more(field: Field, reached_by: str) -> None:
    measured = measure_tracks(bent(field))
    left = [
        ("similarity", measured.beyond_similarity_px),
        ("affine", measured.beyond_affine_px),
        ("quadratic", measured.beyond_quadratic_px),
        ("nothing", math.inf),
    ]
    first = [name for name, _ in left].index(reached_by)
    assert measured.jitter_px > 0.3
    assert all(px > 0.1 for _, px in left[:first])
    assert all(px < 0.01 for _, px in left[first:3])


def test_a_pure_shear_by_hand() -> None:
    # Points on two lines y = +-100: x accelerates by +-2, and no similarity can follow.
    points = np.array([[x, y] for x in np.linspace(-200, 200, 8) for y in (-100.0, 100.0)])
    shear = points[:, 1:] / 100 * [0.5, 0]
    measured = measure_tracks(tracks_of(lambda t: points + shear * (-1) ** t))
    assert measured.jitter_px == pytest.approx(2)
    assert 1 < measured.beyond_similarity_px < 2
    assert measured.beyond_affine_px == pytest.approx(0, abs=1e-6)


def test_what_moves_on_its_own_does_not_bend_the_field() -> None:
    points = scattered(60)
    moving = np.arange(60) % 3 == 0

    def places(t: int) -> np.ndarray:
        at = points * (1 + 0.01 * (-1) ** t)
        at[moving] += np.array([5.0, 4.0]) * (-1) ** t
        return at

    measured = measure_tracks(tracks_of(places))
    assert measured.jitter_px > 5
    # Least squares alone leaves several px.
    assert measured.beyond_similarity_px < 0.1


def test_frames_with_few_tracks_do_not_count() -> None:
    enough, few = scattered(10), scattered(9)

    def places(t: int) -> np.ndarray:
        return enough + sideways(shake(18))[t]

    whole = tracks_of(places)
    kept = whole.frame < 9
    rest = Tracks(
        frame=np.concatenate([whole.frame[kept], np.full(9, 12)]),
        positions_px=np.concatenate(
            [whole.positions_px[kept], np.stack([few, few + 99, few], axis=1)]
        ),
        height_px=HEIGHT,
        num_frames=18,
    )
    measured = measure_tracks(rest)
    assert measured.jitter_px == pytest.approx(SHAKE_JITTER_PX)
    assert (measured.num_frames, measured.num_left_out) == (8, 8)


def test_corrected_tracks_lie_where_opencv_puts_them() -> None:
    matrices = np.array([[[0.9, 0.1, 20.0], [-0.05, 0.8, 30.0]]] * 5)
    matrices[:, 0, 2] += 3.0 * np.arange(5)
    thetas = pixels_to_theta(matrices, width=WIDTH, height=HEIGHT)
    center = np.array([WIDTH - 1, HEIGHT - 1]) / 2
    points = scattered(20) * 0.5
    found = correct_tracks(tracks_of(lambda t: points, 5), thetas)
    assert list(np.unique(found.frame)) == [1, 2, 3]
    for row, frame in enumerate(found.frame):
        for moment in (-1, 0, 1):
            # Output -> input is the matrix: the point goes by its inverse.
            inverse = cv2.invertAffineTransform(matrices[frame + moment])
            wanted = cv2.transform((points[row % 20] + center)[None, None], inverse)[0, 0] - center
            assert found.positions_px[row, 1 + moment] == pytest.approx(wanted, abs=1e-9)


def test_a_correction_takes_the_shake_away_and_its_opposite_doubles_it() -> None:
    points, path = scattered() * 0.9, sideways(shake(18))
    tracks = tracks_of(lambda t: points + path[t])
    # The output shows at p what was filmed at p + path.
    matrices = np.tile(np.eye(2, 3), (18, 1, 1))
    matrices[:, :, 2] = path
    right = pixels_to_theta(matrices, width=WIDTH, height=HEIGHT)
    matrices[:, :, 2] = -path
    wrong = pixels_to_theta(matrices, width=WIDTH, height=HEIGHT)
    assert measure_tracks(correct_tracks(tracks, right)).jitter_px == pytest.approx(0, abs=1e-9)
    doubled = measure_tracks(correct_tracks(tracks, wrong)).jitter_px
    assert doubled == pytest.approx(2 * SHAKE_JITTER_PX)


def test_points_out_of_the_corrected_frame_are_left_out() -> None:
    points = scattered()
    thetas = np.tile(np.eye(2, 3) * 0.5, (6, 1, 1))
    found = correct_tracks(tracks_of(lambda t: points, 6), thetas)
    in_the_middle = (np.abs(points) <= np.array([WIDTH, HEIGHT]) / 4).all(axis=1)
    assert len(found.frame) == 4 * in_the_middle.sum()
    assert found.positions_px[0, 0] == pytest.approx(2 * points[in_the_middle][0])


def test_corrections_must_be_one_for_each_frame() -> None:
    tracks = tracks_of(lambda t: scattered(), 6)
    with pytest.raises(ValueError, match=r"must be \(6, 2, 3 or 6\)"):
        correct_tracks(tracks, np.zeros((5, 2, 3)))


def test_both_trackers_measure_a_shaken_video(photo: np.ndarray) -> None:
    measured = track_jitter(video(photo, sideways(shake(10))))
    assert measured.keys() == NOISE_PX.keys()
    for name, found in measured.items():
        assert found.jitter_px == pytest.approx(SHAKE_JITTER_PX, rel=0.05)
        assert found.beyond_similarity_px < NOISE_PX[name]
        assert (found.num_frames, found.num_left_out) == (8, 0)


def test_px_are_those_of_width_640(photo: np.ndarray) -> None:
    large = video(photo, 2 * sideways(shake(10)))
    small = [
        cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in large
    ]
    for found in track_jitter(small).values():
        assert found.jitter_px == pytest.approx(2 * SHAKE_JITTER_PX, rel=0.06)


def test_both_trackers_see_no_jitter_in_a_pan(photo: np.ndarray) -> None:
    steps = np.arange(6)[:, None] * np.array([5.0, 2.0])
    for name, found in track_jitter(video(photo, steps)).items():
        assert found.jitter_px < NOISE_PX[name]
        assert found.num_frames == 4


def test_both_trackers_tell_a_shear_from_what_a_similarity_does(photo: np.ndarray) -> None:
    linear = np.tile(np.eye(2), (8, 1, 1))
    linear[:, 0, 1] = 0.01 * (-1.0) ** np.arange(8)
    for found in track_jitter(video(photo, np.zeros((8, 2)), linear)).values():
        assert found.beyond_similarity_px > 0.8
        assert found.beyond_affine_px < 0.15 * found.beyond_similarity_px


def test_tracks_mapped_through_corrections_agree_with_the_rendered_video(
    photo: np.ndarray,
) -> None:
    rng = np.random.default_rng(1)
    frames = video(photo, rng.normal(0, 1.5, (10, 2)))
    turned = np.eye(2) + rng.normal(0, 0.004, (10, 2, 2))
    thetas = np.concatenate([0.93 * turned, rng.normal(0, 0.008, (10, 2, 1))], axis=-1)
    matrices = theta_to_pixels(thetas, width=WIDTH, height=HEIGHT)
    rendered = track_jitter(
        cv2.warpAffine(frame, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        for frame, matrix in zip(frames, matrices, strict=True)
    )
    for name, tracks in find_tracks(frames).items():
        mapped = measure_tracks(correct_tracks(tracks, thetas))
        assert mapped.jitter_px == pytest.approx(rendered[name].jitter_px, rel=0.05)
        assert mapped.beyond_similarity_px == pytest.approx(
            rendered[name].beyond_similarity_px, rel=0.1
        )
        # The corrections shake: what was filmed has another jitter.
        assert measure_tracks(tracks).jitter_px < 0.8 * mapped.jitter_px


def test_frames_around_a_cut_are_left_out(photo: np.ndarray) -> None:
    other = cv2.resize(data.coffee(), (900, 900), interpolation=cv2.INTER_CUBIC)
    still = np.zeros((5, 2))
    for found in track_jitter(video(photo, still) + video(other, still)).values():
        assert found.jitter_px < 0.01
        assert (found.num_frames, found.num_left_out) == (6, 2)


def test_a_video_without_texture_has_no_figure() -> None:
    for found in track_jitter([np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 5).values():
        assert math.isnan(found.jitter_px)
        assert math.isnan(found.beyond_quadratic_px)
        assert (found.num_frames, found.num_left_out) == (0, 3)


def test_refuses_what_is_no_video() -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 3 frames, got 2"):
        find_tracks([frame] * 2)
    with pytest.raises(ValueError, match=r"got \(64, 48, 3\) uint8"):
        find_tracks([frame, frame.swapaxes(0, 1)])
    with pytest.raises(ValueError, match="float64"):
        find_tracks([frame.astype(float)])


def test_no_more_than_three_frames_are_held() -> None:
    alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
    most = 0

    class Frame(np.ndarray):
        __hash__ = object.__hash__

    def stream() -> Iterator[np.ndarray]:
        nonlocal most
        for value in range(12):
            frame = np.full((360, 640, 3), value, np.uint8).view(Frame)
            alive.add(frame)
            most = max(most, len(alive))
            yield frame
            del frame

    find_tracks(stream())
    assert 1 <= most <= 3
