"""Virtual flights: the embedded data set, rendered from real photographs.

A virtual camera flies a smooth path over a photograph (the stable clip); the same path with
band-limited shake gives the unstable one. Moving objects, textureless regions, exposure change,
motion blur and sensor noise are added because those are what break motion estimation. The true
correction of every frame is kept beside the videos. Everything is a pure function of the seed.

Convention: a true correction is a theta (see `deepstab.geometry`) from the stable view to the
unstable frame.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from deepstab.config import FlightParams
from deepstab.data.rendering import Flight, MovingObject, render_frames
from deepstab.data.shake import draw_shake, smooth_path, waves
from deepstab.errors import DataError
from deepstab.geometry import pixels_to_theta, similarity_about_center
from deepstab.image import Image
from deepstab.video.writer import write_video

Floats = NDArray[np.float64]

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
_CRF, _PRESET = 18, "veryfast"


def photo_paths(photos: str) -> list[Path]:
    """The photographs to fly over: `skimage`, and besides those the images of a folder.

    Raises:
        DataError: the folder is missing or holds no images.
    """
    bundled = [Path(skimage.__file__).parent / "data" / name for name in _SKIMAGE_PHOTOS]
    if photos == "skimage":
        return bundled
    folder = Path(photos)
    found = (
        sorted(path for path in folder.iterdir() if path.suffix.lower() in _PHOTO_SUFFIXES)
        if folder.is_dir()
        else []
    )
    if not found:
        raise DataError(
            f"data.flights.photos: no jpg, png or tif images in {photos!r}; "
            "name a folder of photos, or `skimage`"
        )
    return bundled + found


def render_flights(
    destination: Path, *, params: FlightParams, seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Render all flights as real video files with their true corrections.

    Args:
        destination: gets stable/N.mp4, unstable/N.mp4 and truth/N.npy, N = 1...
        params: the flights section.
        seed: everything is a pure function of it.

    Returns:
        name -> scene (the photograph) and name -> path of the truth, relative to destination.

    Raises:
        DataError: a photograph cannot be read.
    """
    paths = photo_paths(params.photos)
    for folder in ("stable", "unstable", "truth"):
        (destination / folder).mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng([seed, 0]).permutation(len(paths))
    scenes: dict[str, str] = {}
    truths: dict[str, str] = {}
    for index in range(params.num_flights):
        name = str(index + 1)
        scenes[name] = paths[order[index % len(paths)]].stem
        truths[name] = f"truth/{name}.npy"

    size = (params.width, params.height)

    def render(index: int) -> None:
        photo = _read_photo(paths[order[index % len(paths)]], size)
        other = _read_photo(paths[order[(index + 1) % len(paths)]], size)
        rng = np.random.default_rng([seed, index + 1])
        flight = plan_flight(photo, other, params=params, rng=rng)
        name = str(index + 1)
        rate = Fraction(params.frame_rate).limit_denominator(1001)
        for side, shaken in (("stable", False), ("unstable", True)):
            write_video(
                destination / side / f"{name}.mp4",
                render_frames(flight, params=params, shaken=shaken, rng=rng),
                frame_rate=rate,
                crf=_CRF,
                preset=_PRESET,
            )
        np.save(destination / truths[name], true_correction(flight, params=params))

    with ThreadPoolExecutor() as pool:
        list(pool.map(render, range(params.num_flights)))
    return scenes, truths


def plan_flight(
    photo: Image, other: Image, *, params: FlightParams, rng: np.random.Generator
) -> Flight:
    """Draw one flight.

    Args:
        photo: (height, width, 3) uint8, the ground.
        other: (height, width, 3) uint8, moving objects are cut from it.
        params: the flights section.
        rng: source of all randomness.
    """
    times_s = np.arange(params.num_frames) / params.frame_rate
    amplitude = float(np.exp(rng.uniform(np.log(params.shake_min), np.log(params.shake_max))))
    photo_height, photo_width = photo.shape[:2]
    # Photo pixels per output pixel: most of the photo in view at the largest.
    fit = min(photo_width / params.width, photo_height / params.height)
    return Flight(
        photo=_with_textureless_region(photo, rng) if rng.random() < 0.4 else photo,
        path=smooth_path(times_s, params.width, rng),
        shake=draw_shake(times_s, params, amplitude, rng),
        view_scale=float(rng.uniform(0.45, 0.9)) * fit,
        view_center=(
            float(rng.uniform(0.35, 0.65)) * photo_width,
            float(rng.uniform(0.35, 0.65)) * photo_height,
        ),
        objects=tuple(_moving_object(photo, other, params, rng) for _ in range(rng.integers(0, 4))),
        gains=1 + rng.uniform(0, 0.15) * waves(times_s, (0.1, 0.5), rng),
        blur_sigma_px=float(rng.uniform(0, 0.8)),
        noise_std=float(rng.uniform(0, 4)),
    )


def true_correction(flight: Flight, *, params: FlightParams) -> Floats:
    """Thetas (num_frames, 2, 3) that turn the shaken video into the stable one exactly."""
    size = (params.width, params.height)
    matrices = np.stack(
        [np.linalg.inv(similarity_about_center(row, size))[:2] for row in flight.shake]
    )
    return pixels_to_theta(matrices, width=params.width, height=params.height)


def _read_photo(path: Path, size: tuple[int, int]) -> Image:
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


def _with_textureless_region(photo: Image, rng: np.random.Generator) -> Image:
    """Half of the photo, bounded by a soft random line, becomes sky or water."""
    height, width = photo.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = (xs / width - 0.5) * np.cos(angle) + (ys / height - 0.5) * np.sin(angle)
    weight = np.clip((distance - rng.uniform(-0.05, 0.15)) / 0.02 + 0.5, 0, 1)[:, :, None]
    smooth = cv2.GaussianBlur(photo, (0, 0), 0.12 * max(height, width))
    return np.rint(photo * (1 - weight) + smooth * weight).astype(np.uint8)


def _moving_object(
    photo: Image, other: Image, params: FlightParams, rng: np.random.Generator
) -> MovingObject:
    height, width = photo.shape[:2]
    side = int(rng.uniform(0.06, params.object_max) * min(height, width, *other.shape[:2]))
    top = int(rng.integers(0, other.shape[0] - side))
    left = int(rng.integers(0, other.shape[1] - side))
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.hypot(axis[:, None], axis[None, :])
    velocity = rng.normal(0, 0.12 * width / params.frame_rate, 2)
    return MovingObject(
        texture=other[top : top + side, left : left + side],
        alpha=np.clip((1 - radius) / 0.1, 0, 1).astype(np.float32),
        position=(float(rng.uniform(0.2, 0.8)) * width, float(rng.uniform(0.2, 0.8)) * height),
        velocity=(float(velocity[0]), float(velocity[1])),
    )
