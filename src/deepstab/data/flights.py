"""Virtual flights: the embedded data set, rendered from real photographs.

A virtual camera flies a smooth path over a photograph, past moving objects, textureless regions
and things nearer than the ground, because those are what break motion estimation. What it films
is then shaken along a known path (see `deepstab.data.shaken`). Everything is a pure function of
the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import skimage

from deepstab.config import FlightParams
from deepstab.data.occluders import occlude
from deepstab.data.rendering import Flight, MovingObject, render_frames
from deepstab.data.shake import Floats, Similarity, Size, waves
from deepstab.data.shaken import (
    CleanClip,
    Recording,
    draw_recording,
    remove_unfinished,
    truth_path,
    write_pair,
)
from deepstab.errors import DataError
from deepstab.image import Image
from deepstab.workers import Tick, run_all

# Photographs in scikit-image's wheel that have texture at several scales.
_SKIMAGE_PHOTOS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
]
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")

# Photo pixels per frame pixel, at most, with all of the photo in view.
_MAX_PHOTO_PX = 4.0
# How far something near runs ahead of the ground, at most: fraction of the width a frame.
_MAX_DISPARITY = 0.015


def photo_paths(photos: Path) -> list[Path]:
    """The photographs to fly over: `skimage`, and besides those the images of a folder.

    Args:
        photos: `skimage`, or a folder.

    Raises:
        DataError: the folder is missing or holds no images.
    """
    bundled = [Path(skimage.__file__).parent / "data" / name for name in _SKIMAGE_PHOTOS]
    if str(photos) == "skimage":
        return bundled
    found = (
        sorted(path for path in photos.iterdir() if path.suffix.lower() in _PHOTO_SUFFIXES)
        if photos.is_dir()
        else []
    )
    if not found:
        raise DataError(
            f"data.flights.photos: no jpg, png or tif images in {str(photos)!r}; "
            "name a folder of photos, or `skimage`"
        )
    return bundled + found


def render_flights(
    destination: Path, *, params: FlightParams, photos: Path, seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Render all flights as real video files with what is known about them.

    Args:
        destination: gets stable/N.mp4, unstable/N.mp4 and truth/N.npz, N = 1...
        params: the flights section.
        photos: as of `photo_paths`.
        seed: everything is a pure function of it.

    Returns:
        name -> scene (the photograph) and name -> path of the truth, relative to destination.

    Raises:
        DataError: a photograph cannot be read.
    """
    paths = photo_paths(photos)
    order = np.random.default_rng([seed, 0]).permutation(len(paths))
    chosen = [paths[order[index % len(paths)]] for index in range(params.num_flights + 1)]
    names = [str(index + 1) for index in range(params.num_flights)]

    here = [path.absolute() for path in chosen]
    jobs = [
        _Flight(name, (here[index], here[index + 1]), (seed, index + 1))
        for index, name in enumerate(names)
    ]
    run_all(partial(_render, destination.absolute(), params), jobs)
    remove_unfinished(destination)
    return (
        {name: path.stem for name, path in zip(names, chosen, strict=False)},
        {name: truth_path(name) for name in names},
    )


@dataclass(frozen=True)
class _Flight:
    """One flight: its name, the photos it is made of, and where its randomness comes from."""

    name: str
    photos: tuple[Path, Path]
    seed: tuple[int, int]


def _render(destination: Path, params: FlightParams, job: _Flight, _tick: Tick) -> None:
    rng = np.random.default_rng(job.seed)
    size = (params.width, params.height)
    photo, other = (_read_photo(path, size) for path in job.photos)
    recording = draw_recording(params, frame_rate=params.frame_rate, num_available=10**6, rng=rng)
    clip = film(photo, other, params=params, recording=recording, rng=rng)
    write_pair(destination, job.name, clip=clip, recording=recording, size=size, rng=rng)


def film(
    photo: Image,
    other: Image,
    *,
    params: FlightParams,
    recording: Recording,
    rng: np.random.Generator,
) -> CleanClip:
    """The clean clip of one flight, as much larger than the video as the shake takes.

    Args:
        photo: (height, width, 3) uint8, the ground.
        other: (height, width, 3) uint8, moving objects are cut from it.
        params: the flights section.
        recording: how it will be filmed.
        rng: source of all randomness.
    """
    size = (round(params.width / recording.room), round(params.height / recording.room))
    times_s = np.arange(recording.num_clean) / recording.frame_rate
    flight = plan_flight(photo, other, params=params, times_s=times_s, size=size, rng=rng)
    frames = list(render_frames(flight, size))
    if recording.faults.occluded:
        frames = list(occlude(frames, [other], frame_rate=recording.frame_rate, rng=rng))
    return CleanClip(frames, flight.own_motion, scale=1.0)


def plan_flight(
    photo: Image,
    other: Image,
    *,
    params: FlightParams,
    times_s: Floats,
    size: Size,
    rng: np.random.Generator,
) -> Flight:
    """Draw one flight.

    Args:
        photo: (height, width, 3) uint8, the ground.
        other: (height, width, 3) uint8, moving objects are cut from it.
        params: the flights section.
        times_s: when each frame is filmed, (num_frames,).
        size: of the frames.
        rng: source of all randomness.
    """
    photo_size = np.array([photo.shape[1], photo.shape[0]])
    # Photo pixels per output pixel: most of the photo in view at the largest.
    scale = float(rng.uniform(0.45, 0.9) * np.min(photo_size / size))
    start = complex(*(rng.uniform(-0.15, 0.15, 2) * photo_size))
    smooth = _smooth_path(times_s, size[0], rng)
    path = Similarity(scale * smooth.factor, start + scale * smooth.shift)
    objects = [
        _cut_out(photo, other, (0.06, params.object_max), rng).moved(
            times_s * complex(*rng.normal(0, 0.12 * photo.shape[1], 2))
        )
        for _ in range(rng.integers(0, 4))
    ]
    if rng.random() < params.parallax:
        speed = float(np.abs(np.diff(path.shift)).mean())
        for _ in range(rng.integers(1, 5)):
            ahead = rng.uniform(0, _MAX_DISPARITY) * scale * size[0] / speed
            near = _cut_out(photo, other, (0.2, 0.6), rng)
            objects.append(near.moved(ahead * (path.shift[0] - path.shift)))
    return Flight(
        photo=_with_textureless_region(photo, rng) if rng.random() < 0.4 else photo,
        path=path,
        objects=tuple(objects),
    )


def _read_photo(path: Path, size: Size) -> Image:
    """Read a photo, shrunk by area where it has far more pixels than the frame: no aliasing."""
    # imdecode over read bytes: non-ASCII names work on every platform.
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: not a readable image; remove it from data.flights.photos")
    surplus = min(image.shape[1] / size[0], image.shape[0] / size[1]) / _MAX_PHOTO_PX
    if surplus > 1:
        image = cv2.resize(
            image, None, fx=1 / surplus, fy=1 / surplus, interpolation=cv2.INTER_AREA
        )
    return np.asarray(image[:, :, ::-1], np.uint8, copy=True)


def _smooth_path(times_s: Floats, width: int, rng: np.random.Generator) -> Similarity:
    drift = rng.normal(0, [0.10 * width, 0.06 * width, 0.03, 0.02])  # per second
    slow_band = (0.03, 0.25)
    sway = np.stack([waves(times_s, slow_band, rng) for _ in range(4)], axis=1)
    amplitude = rng.uniform(0, [0.04 * width, 0.03 * width, 0.04, 0.04])
    x, y, roll, log_zoom = (drift * times_s[:, None] + amplitude * sway).T
    return Similarity(np.exp(log_zoom + 1j * roll), x + 1j * y)


def _with_textureless_region(photo: Image, rng: np.random.Generator) -> Image:
    """Half of the photo, bounded by a soft random line, becomes sky or water."""
    height, width = photo.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = (xs / width - 0.5) * np.cos(angle) + (ys / height - 0.5) * np.sin(angle)
    weight = np.clip((distance - rng.uniform(-0.05, 0.15)) / 0.02 + 0.5, 0, 1)[:, :, None]
    smooth = cv2.GaussianBlur(photo, (0, 0), 0.12 * max(height, width))
    return np.rint(photo * (1 - weight) + smooth * weight).astype(np.uint8)


def _cut_out(
    photo: Image, other: Image, sides: tuple[float, float], rng: np.random.Generator
) -> MovingObject:
    """A disc of another photo that stands still at a random place of this one.

    Args:
        photo: where it stands.
        other: what it is cut from.
        sides: smallest and largest diameter, fraction of the shorter side of both photos.
        rng: source of all randomness.
    """
    height, width = photo.shape[:2]
    side = int(rng.uniform(*sides) * min(height, width, *other.shape[:2]))
    top = int(rng.integers(0, other.shape[0] - side))
    left = int(rng.integers(0, other.shape[1] - side))
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.hypot(axis[:, None], axis[None, :])
    place = complex(rng.uniform(-0.3, 0.3) * width, rng.uniform(-0.3, 0.3) * height)
    return MovingObject(
        texture=other[top : top + side, left : left + side],
        alpha=np.clip((1 - radius) / 0.1, 0, 1).astype(np.float32),
        positions=np.array([place]),
    )
