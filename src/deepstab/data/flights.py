"""Virtual flights: the embedded data set, rendered from real photographs.

A virtual camera flies a smooth path over a photograph (the stable clip); the same path with
band-limited shake gives the unstable one. Moving objects, textureless regions, exposure change,
motion blur and sensor noise are added because those are what break motion estimation. The true
correction of every frame is kept beside the videos. Everything is a pure function of the seed.

Convention: a camera is a 2x3 similarity from output pixels (x, y) to photo pixels; a true
correction is a theta (see `deepstab.geometry`) from the stable view to the unstable frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from deepstab.config import FlightParams
from deepstab.errors import DataError
from deepstab.geometry import pixels_to_theta
from deepstab.video.writer import write_video

Image = NDArray[np.uint8]
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

_SHAKE_BAND_HZ = (1.0, 12.0)
_WAVES_PER_SIGNAL = 8
# Photo pixels per frame pixel, at most, with all of the photo in view.
_MAX_PHOTO_PX = 4.0
_CRF, _PRESET = 18, "veryfast"


@dataclass(frozen=True)
class Flight:
    """All that one flight is made of. Paths have one row per frame: x, y (px of the output
    frame), roll (rad), log zoom."""

    photo: Image
    path: Floats
    shake: Floats
    view_scale: float
    view_center: tuple[float, float]
    objects: tuple[MovingObject, ...]
    gains: Floats
    blur_sigma_px: float
    noise_std: float


@dataclass(frozen=True)
class MovingObject:
    """A cut-out of a photograph that moves on its own: position and velocity in photo px."""

    texture: Image
    alpha: NDArray[np.float32]
    position: tuple[float, float]
    velocity: tuple[float, float]


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
        path=_smooth_path(times_s, params.width, rng),
        shake=draw_shake(times_s, params, amplitude, rng),
        view_scale=float(rng.uniform(0.45, 0.9)) * fit,
        view_center=(
            float(rng.uniform(0.35, 0.65)) * photo_width,
            float(rng.uniform(0.35, 0.65)) * photo_height,
        ),
        objects=tuple(_moving_object(photo, other, params, rng) for _ in range(rng.integers(0, 4))),
        gains=1 + rng.uniform(0, 0.15) * _waves(times_s, (0.1, 0.5), rng),
        blur_sigma_px=float(rng.uniform(0, 0.8)),
        noise_std=float(rng.uniform(0, 4)),
    )


def render_frames(
    flight: Flight, *, params: FlightParams, shaken: bool, rng: np.random.Generator
) -> Iterator[Image]:
    """Frames (height, width, 3) uint8 RGB of the stable or the shaken camera."""
    size = (params.width, params.height)
    for index in range(params.num_frames):
        camera = _camera(flight, index, size, shaken=shaken)
        frame = cv2.warpAffine(
            flight.photo,
            camera[:2],
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).astype(np.float32)
        for item in flight.objects:
            frame = _paint(frame, item, camera, index, size)
        if shaken:
            frame = _motion_blur(frame, _shake_velocity(flight, index))
        if flight.blur_sigma_px > 0.2:
            frame = cv2.GaussianBlur(frame, (0, 0), flight.blur_sigma_px).astype(np.float32)
        frame *= flight.gains[index]
        frame += flight.noise_std * rng.standard_normal(frame.shape, dtype=np.float32)
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)


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


def _waves(times_s: Floats, band_hz: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A signal of unit RMS made of sinusoids in a band, amplitude falling with frequency."""
    frequencies = np.exp(rng.uniform(math.log(band_hz[0]), math.log(band_hz[1]), _WAVES_PER_SIGNAL))
    phases = rng.uniform(0, 2 * np.pi, _WAVES_PER_SIGNAL)
    amplitudes = rng.uniform(0.3, 1, _WAVES_PER_SIGNAL) / np.sqrt(frequencies)
    amplitudes *= np.sqrt(2 / np.sum(amplitudes**2))
    angles = 2 * np.pi * frequencies * times_s[:, None] + phases
    signal: Floats = np.sin(angles) @ amplitudes
    return signal


def _smooth_path(times_s: Floats, width: int, rng: np.random.Generator) -> Floats:
    drift = rng.normal(0, [0.10 * width, 0.06 * width, 0.03, 0.02])  # per second
    slow_band = (0.03, 0.25)
    sway = np.stack([_waves(times_s, slow_band, rng) for _ in range(4)], axis=1)
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
    signals = np.stack([_waves(times_s, band, rng) for _ in range(4)], axis=1)
    roll_and_zoom = float(rng.uniform(0.1, 0.6)), float(rng.uniform(0.0, 0.15))
    scale = np.array([params.width, params.width, *roll_and_zoom])
    return amplitude * scale * signals


def similarity_about_center(row: Floats, size: tuple[int, int]) -> Floats:
    """(x, y, roll, log zoom) as a 3x3 similarity in px about the center of a (width, height)."""
    x, y, roll, log_zoom = row
    center_x, center_y = (size[0] - 1) / 2, (size[1] - 1) / 2
    cos, sin = np.exp(log_zoom) * np.cos(roll), np.exp(log_zoom) * np.sin(roll)
    return np.array(
        [
            [cos, -sin, center_x + x - cos * center_x + sin * center_y],
            [sin, cos, center_y + y - sin * center_x - cos * center_y],
            [0, 0, 1],
        ]
    )


def _camera(flight: Flight, index: int, size: tuple[int, int], *, shaken: bool) -> Floats:
    """The 3x3 similarity from output to photo pixels at one frame."""
    scale, (x, y) = flight.view_scale, flight.view_center
    to_photo = np.array(
        [
            [scale, 0, x - scale * (size[0] - 1) / 2],
            [0, scale, y - scale * (size[1] - 1) / 2],
            [0, 0, 1],
        ]
    )
    camera: Floats = to_photo @ similarity_about_center(flight.path[index], size)
    return camera @ similarity_about_center(flight.shake[index], size) if shaken else camera


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


def _paint(
    frame: NDArray[np.float32],
    item: MovingObject,
    camera: Floats,
    index: int,
    size: tuple[int, int],
) -> NDArray[np.float32]:
    x = item.position[0] + index * item.velocity[0]
    y = item.position[1] + index * item.velocity[1]
    to_object = (np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]]) @ camera)[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    alpha = cv2.warpAffine(item.alpha, to_object, size, flags=flags)[:, :, None]
    texture = cv2.warpAffine(item.texture, to_object, size, flags=flags)
    painted: NDArray[np.float32] = frame + alpha * (texture - frame)
    return painted


def _shake_velocity(flight: Flight, index: int) -> Floats:
    """Shake velocity in px per frame, by the difference to the neighboring frame."""
    first = min(index, len(flight.shake) - 2)
    velocity: Floats = flight.shake[first + 1, :2] - flight.shake[first, :2]
    return velocity


def _motion_blur(frame: NDArray[np.float32], velocity_px: Floats) -> NDArray[np.float32]:
    """Blur along the shake over a quarter of the frame time, centered: no shift of the image."""
    length = 0.25 * float(np.hypot(*velocity_px))
    if length < 1:
        return frame
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    for position in np.linspace(-0.5, 0.5, 4 * side):
        x, y = middle + position * length * velocity_px / np.hypot(*velocity_px)
        kernel[int(np.rint(y)), int(np.rint(x))] += 1
    return np.asarray(cv2.filter2D(frame, -1, kernel / kernel.sum()), dtype=np.float32)
