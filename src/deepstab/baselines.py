"""What DeepStab-GAN is compared with: tracked features with a Gaussian path, and ffmpeg vid.stab.

Convention: corrections are (2, 3) matrices in pixels of the frame, output -> input, (x, y) order,
pixel centers at whole numbers, as `cv2.warpAffine` takes them with `cv2.WARP_INVERSE_MAP`.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.errors import VideoError

GAUSSIAN_SIGMA_FRAMES = 15.0
"""Of the common recipe: half a second at 30 frames/s."""

# Corners are tracked at this width at most; the corrections are for the true size.
_TRACKING_WIDTH_PX = 640
_MAX_CORNERS = 400
_CORNER_QUALITY = 0.01
_CORNER_DISTANCE_PX = 12
_MIN_CORNERS = 10
_TRACKING_WINDOW = (21, 21)
_PYRAMID_LEVELS = 4
_RANSAC_THRESHOLD_PX = 3.0
# The Gaussian is cut at this many sigma.
_KERNEL_REACH = 4


def gaussian_path_corrections(
    frames: Iterable[NDArray[np.uint8]], *, sigma_frames: float
) -> NDArray[np.float64]:
    """Stabilize by the classical recipe: track corners, low-pass the camera path, undo the rest.

    Corners are tracked from frame to frame by pyramidal Lucas-Kanade, a robust similarity is
    fitted, and its translation, rotation and log-scale are summed up to the camera path. Every
    correction carries the path to its Gaussian average; at both ends the path is continued by
    point reflection, so that a steady pan is left alone. Frames whose motion cannot be measured
    count as still. Two frames are held at a time.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size.
        sigma_frames: standard deviation of the Gaussian, frames.

    Returns:
        (num_frames, 2, 3) corrections, output -> input, pixels.

    Raises:
        ValueError: sigma is not positive, there is no frame, or the frames differ in size.

    Source: goodFeaturesToTrack (Shi and Tomasi 1994), calcOpticalFlowPyrLK (Bouguet 2000) and
    estimateAffinePartial2D (RANSAC) of OpenCV; the path as in the common OpenCV tutorials.
    """
    if not (math.isfinite(sigma_frames) and sigma_frames > 0):
        raise ValueError(f"sigma_frames must be positive and finite, got {sigma_frames}")
    grays = _Grays(frames)
    steps = [_track_similarity(previous, current) for previous, current in pairwise(grays)]
    if not grays.num_frames:
        raise ValueError("no frames to stabilize")
    path = np.cumsum([(0.0, 0.0, 0.0, 0.0), *steps], axis=0)
    shake = path - _smooth(path, sigma_frames)
    return _similarity_matrices(shake, width=grays.width, height=grays.height)


def smallest_zoom(
    corrections: NDArray[np.float64], *, width: int, height: int, max_zoom: float
) -> float:
    """The static zoom about the center that leaves no black border in any frame.

    Args:
        corrections: (num_frames, 2, 3), output -> input, pixels.
        width, height: frame size, px.
        max_zoom: largest zoom allowed; black borders may remain where it binds.

    Returns:
        Zoom in [1, max_zoom], for `warp_frames`.

    Raises:
        ValueError: max_zoom is below 1.
    """
    if not max_zoom >= 1:
        raise ValueError(f"max_zoom must be at least 1, got {max_zoom}")
    half = np.array([width - 1, height - 1]) / 2
    centers = corrections[:, :, :2] @ half + corrections[:, :, 2] - half
    corners = half * [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    # Input position of an output corner at zoom z: center + reach / z, to stay within +-half.
    reach = np.einsum("tij,cj->tci", corrections[:, :, :2], corners)
    room = half - np.sign(reach) * centers[:, None]
    if np.any((room <= 0) & (np.abs(reach) > 0)):
        return max_zoom
    needed = np.max(np.abs(reach) / np.where(room > 0, room, 1.0), initial=1.0)
    return float(np.clip(needed, 1.0, max_zoom))


def warp_frames(
    frames: Iterable[NDArray[np.uint8]], corrections: NDArray[np.float64], *, zoom: float
) -> Iterator[NDArray[np.uint8]]:
    """Apply corrections to frames of the same size, one at a time; what lies outside is black.

    Args:
        frames: (H, W, 3) uint8.
        corrections: (num_frames, 2, 3), output -> input, pixels.
        zoom: static magnification about the center of the output.

    Yields:
        (H, W, 3) uint8, bilinear.

    Raises:
        ValueError: there are more or fewer frames than corrections, or zoom is not positive.
    """
    if not zoom > 0:
        raise ValueError(f"zoom must be positive, got {zoom}")
    for frame, correction in zip(frames, corrections, strict=True):
        height, width = frame.shape[:2]
        center = np.array([width - 1, height - 1]) / 2
        linear = correction[:, :2] / zoom
        shift = correction[:, :2] @ center + correction[:, 2] - linear @ center
        warped = cv2.warpAffine(
            frame,
            np.column_stack([linear, shift]),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(0, 0, 0),
        )
        yield np.asarray(warped, dtype=np.uint8)


def vidstab_available() -> bool:
    """Whether ffmpeg is installed and was built with vid.stab."""
    if shutil.which("ffmpeg") is None:
        return False
    listing = subprocess.run(
        ["ffmpeg", "-hide_banner", "-filters"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return "vidstabdetect" in listing.stdout and "vidstabtransform" in listing.stdout


def vidstab(input_path: Path, output_path: Path, *, crf: int, preset: str) -> None:
    """Stabilize a file with ffmpeg's vid.stab, two passes, all filter settings at their defaults.

    The output is written when both passes have succeeded; audio is copied.

    Args:
        input_path: video to read.
        output_path: video to write (H.264, yuv420p); its suffix chooses the container.
        crf: constant rate factor of libx264, 0 (lossless) to 51.
        preset: speed preset of libx264, for example `medium`.

    Raises:
        VideoError: ffmpeg is missing, lacks vid.stab, or fails.
    """
    if not vidstab_available():
        raise VideoError(
            f"{input_path}: no ffmpeg with vid.stab was found; install one built with libvidstab"
        )
    source = str(input_path.resolve())
    encoder = ["-c:v", "libx264", "-crf", str(crf), "-preset", preset, "-pix_fmt", "yuv420p"]
    with tempfile.TemporaryDirectory() as folder:
        # Relative names: a path in a filter argument would need escaping.
        detect = ["-map", "0:v:0", "-vf", "vidstabdetect=result=transforms.trf"]
        _run_ffmpeg(["-i", source, *detect, "-f", "null", "-"], folder=folder, video=input_path)
        transform = ["-map", "0:v:0", "-vf", "vidstabtransform=input=transforms.trf", *encoder]
        audio = ["-map", "0:a?", "-c:a", "copy"]
        finished = f"stabilized{output_path.suffix}"
        _run_ffmpeg(["-i", source, *transform, *audio, finished], folder=folder, video=input_path)
        try:
            shutil.move(Path(folder) / finished, output_path)
        except OSError as error:
            raise VideoError(
                f"{output_path}: cannot be written: {error.strerror}; choose another path"
            ) from error


class _Grays:
    """Turns frames to gray at the tracking width, and remembers their number and size."""

    def __init__(self, frames: Iterable[NDArray[np.uint8]]) -> None:
        self._frames = frames
        self.num_frames = 0
        self.width = 0
        self.height = 0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for frame in self._frames:
            height, width = frame.shape[:2]
            if self.num_frames and (width, height) != (self.width, self.height):
                raise ValueError(
                    f"frame {self.num_frames} is {width}x{height}, the ones before are "
                    f"{self.width}x{self.height}"
                )
            self.num_frames += 1
            self.width, self.height = width, height
            gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if width > _TRACKING_WIDTH_PX:
                size = (_TRACKING_WIDTH_PX, max(1, round(height * _TRACKING_WIDTH_PX / width)))
                gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
            yield np.asarray(gray, dtype=np.uint8)


def _track_similarity(
    previous: NDArray[np.uint8], current: NDArray[np.uint8]
) -> tuple[float, float, float, float]:
    # Shift of the center (fractions of the width), angle, log-scale; still if too little is found.
    still = (0.0, 0.0, 0.0, 0.0)
    found = cv2.goodFeaturesToTrack(previous, _MAX_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX)
    if found is None or len(found) < _MIN_CORNERS:
        return still
    tracked, status, _ = cv2.calcOpticalFlowPyrLK(
        previous,
        current,
        found,
        np.empty_like(found),
        winSize=_TRACKING_WINDOW,
        maxLevel=_PYRAMID_LEVELS,
    )
    kept = status.ravel() > 0
    if kept.sum() < _MIN_CORNERS:
        return still
    height, width = previous.shape
    center = np.array([width - 1, height - 1]) / 2
    matrix, _ = cv2.estimateAffinePartial2D(
        found.reshape(-1, 2)[kept] - center,
        tracked.reshape(-1, 2)[kept] - center,
        method=cv2.RANSAC,
        ransacReprojThreshold=_RANSAC_THRESHOLD_PX,
    )
    if matrix is None:
        return still
    cosine, sine = float(matrix[0, 0]), float(matrix[1, 0])
    return (
        float(matrix[0, 2]) / width,
        float(matrix[1, 2]) / width,
        math.atan2(sine, cosine),
        math.log(math.hypot(cosine, sine)),
    )


def _smooth(path: NDArray[np.float64], sigma_frames: float) -> NDArray[np.float64]:
    # (frames, signals); point reflection continues slopes, plain reflection would bend pans.
    reach = max(1, math.ceil(_KERNEL_REACH * sigma_frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_frames) ** 2)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0)
    return np.asarray(windows @ (kernel / kernel.sum()))


def _similarity_matrices(
    shake: NDArray[np.float64], *, width: int, height: int
) -> NDArray[np.float64]:
    # The shake (x, y in widths, angle, log-scale) moved the steady output's content to the input.
    scale = np.exp(shake[:, 3])
    cosine, sine = scale * np.cos(shake[:, 2]), scale * np.sin(shake[:, 2])
    linear = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], axis=1)
    center = np.array([width - 1, height - 1]) / 2
    shift = center + shake[:, :2] * width - linear @ center
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def _run_ffmpeg(arguments: list[str], *, folder: str, video: Path) -> None:
    done = subprocess.run(
        ["ffmpeg", "-hide_banner", "-nostdin", "-y", "-v", "error", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise VideoError(f"{video}: ffmpeg vid.stab failed: {reason}; check that it plays")
