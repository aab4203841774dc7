"""Ordinary videos, shaken by us along known paths: exact truth about the real world.

A locked-off camera does not move, so that the shake is all the truth. Where the camera moves, its
own motion is measured on the clean clip, before anything is degraded: the task is then harder
than its teacher's. Where two halves of the evidence disagree, the truth stays unknown.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.config import VideosParams
from deepstab.data.folder import SUFFIXES, videos_in
from deepstab.data.occluders import occlude
from deepstab.data.shake import Similarity, standing_still
from deepstab.data.shaken import (
    CleanClip,
    draw_recording,
    remove_unfinished,
    truth_path,
    write_pair,
)
from deepstab.errors import DataError
from deepstab.image import Image
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.workers import Tick, run_all

Points = NDArray[np.float32]

_MAX_CORNERS, _MIN_CORNERS = 400, 30
# Tracked there and back, a corner must come home so exactly.
_MAX_RETURN_PX = 0.3
# Two halves of the corners must say the same within so much, on average over the frame.
_MAX_DISAGREEMENT_PX = 0.25
# Of a locked-off camera a tenth of the corners stays where it was in one frame, whatever walks
# through the picture; looked at every so many frames.
_STILL_PX, _LOOK_EVERY = 0.25, 10


@dataclass(frozen=True)
class SourceVideo:
    """A video as it was found."""

    path: Path
    num_frames: int
    frame_rate: float
    size: tuple[int, int]

    def read(self, *, first_frame: int, num_frames: int, stride: int) -> list[Image]:
        """Some of its frames, in the size they are worked on."""
        stop = first_frame + num_frames * stride
        return list(islice(read_frames(self.path, size=self.size), first_frame, stop, stride))


def find_sources(folder: Path, *, width: int) -> list[SourceVideo]:
    """The videos of a folder and the folders in it, ordered by name.

    Args:
        folder: where to look.
        width: px; the height follows from the video's own shape.

    Raises:
        DataError: there are none, or two have the same name.
        VideoError: one does not decode.
    """
    paths = videos_in(folder, "**/*")
    if not paths:
        raise DataError(
            f"data.videos.folder: no {', '.join(SUFFIXES)} videos in {str(folder)!r}; "
            "name a folder of videos, or `material`"
        )
    by_name: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_name:
            raise DataError(f"{path} and {by_name[path.stem]} have the same name; rename one")
        by_name[path.stem] = path
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: _inspect(path.absolute(), width), by_name.values()))


def render_videos(
    destination: Path, *, folder: Path, params: VideosParams, seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Shake every video of a folder in several ways.

    Args:
        destination: gets stable/NAME.mp4, unstable/NAME.mp4 and truth/NAME.npz.
        folder: of the videos.
        params: the videos section.
        seed: everything is a pure function of it and the videos.

    Returns:
        name -> scene (the video it was made of) and name -> path of the truth, relative to
        destination.

    Raises:
        DataError: as `find_sources`.
        VideoError: a video does not decode.
    """
    sources = find_sources(folder, width=params.width)
    variants = range(1, params.variants + 1)
    jobs = [_Variant(source, variant, seed) for source in sources for variant in variants]
    run_all(partial(_render, destination.absolute(), sources, params), jobs)
    remove_unfinished(destination)
    return (
        {job.name: job.source.path.stem for job in jobs},
        {job.name: truth_path(job.name) for job in jobs},
    )


def own_motion(frames: list[Image]) -> Similarity:
    """The motion of each frame of a clean clip to the one before it.

    Args:
        frames: (height, width, 3) uint8 RGB.

    Returns:
        (num_frames,), px from the center; all the identity where the camera is locked off, NaN
        where it cannot be told. The first is the identity.
    """
    grays = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames]
    motion = standing_still(len(grays))
    if is_locked_off(grays):
        return motion
    for index in range(1, len(grays)):
        motion.factor[index], motion.shift[index] = _similarity(grays[index], grays[index - 1])
    return motion


def is_locked_off(grays: list[Image]) -> bool:
    """Whether the camera of a clip (height, width) uint8 never moves."""
    looked_at = grays[::_LOOK_EVERY]
    # What stands before the camera in one frame may be gone in another.
    references = (looked_at[0], looked_at[len(looked_at) // 2], looked_at[-1])
    return len(looked_at) > 1 and any(
        all(_stands_still(reference, gray) for gray in looked_at) for reference in references
    )


def _stands_still(first: Image, second: Image) -> bool:
    before, after = _track(first, second)
    if len(before) < _MIN_CORNERS:
        return False
    return float(np.percentile(np.linalg.norm(after - before, axis=1), 10)) < _STILL_PX


@dataclass(frozen=True)
class _Variant:
    """One way to shake a video."""

    source: SourceVideo
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.source.path.stem}_{self.number}"


def _render(
    destination: Path, sources: list[SourceVideo], params: VideosParams, job: _Variant, _tick: Tick
) -> None:
    source = job.source
    rng = np.random.default_rng([job.seed, _number(source.path.stem), job.number])
    recording = draw_recording(
        params, frame_rate=source.frame_rate, num_available=source.num_frames, rng=rng
    )
    length = {"num_frames": recording.num_clean, "stride": recording.stride}
    spare = source.num_frames - recording.num_clean * recording.stride
    frames = source.read(first_frame=int(rng.integers(0, spare + 1)), **length)
    own = own_motion(frames)
    others = [other for other in sources if other != source] or sources
    near = others[int(rng.integers(0, len(others)))]
    if recording.faults.occluded:
        texture = near.read(first_frame=0, **length)
        frames = list(occlude(frames, texture, frame_rate=recording.frame_rate, rng=rng))
    write_pair(
        destination,
        job.name,
        clip=CleanClip(frames, own, scale=recording.room),
        recording=recording,
        size=source.size,
        rng=rng,
    )


def _inspect(path: Path, width: int) -> SourceVideo:
    info = probe(path)
    height = 2 * round(width * info.height / info.width / 2)
    return SourceVideo(path, count_frames(path), float(info.frame_rate), (width, height))


def _similarity(gray: Image, previous: Image) -> tuple[complex, complex]:
    """Factor and shift of the motion from one frame to the previous, NaN where it is unknown."""
    points, found = _track(gray, previous)
    unknown = complex(np.nan, np.nan)
    if len(points) < _MIN_CORNERS:
        return unknown, unknown
    height, width = gray.shape
    center = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    points, found = points - center, found - center
    fits = [
        cv2.estimateAffinePartial2D(
            np.ascontiguousarray(points[part]),
            np.ascontiguousarray(found[part]),
            method=cv2.RANSAC,
            ransacReprojThreshold=1.0,
        )[0]
        for part in (slice(0, None, 2), slice(1, None, 2), slice(None))
    ]
    if any(fit is None for fit in fits):
        return unknown, unknown
    # The four corners of the inner frame and its center.
    reach = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1], [0, 0]]) * [0.3 * width, 0.3 * height]
    places = [reach @ fit[:, :2].T + fit[:, 2] for fit in fits]
    if np.linalg.norm(places[0] - places[1], axis=1).mean() > _MAX_DISAGREEMENT_PX:
        return unknown, unknown
    return complex(fits[2][0, 0], fits[2][1, 0]), complex(fits[2][0, 2], fits[2][1, 2])


def _track(first: Image, second: Image) -> tuple[Points, Points]:
    """Corners (points, 2) of the first frame and where they are in the second."""
    corners = cv2.goodFeaturesToTrack(first, _MAX_CORNERS, qualityLevel=0.01, minDistance=8)
    if corners is None:
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    start = np.asarray(corners, np.float32)
    found, there = _follow(first, second, start)
    back, home = _follow(second, first, found)
    away_px = np.linalg.norm(back - start, axis=-1).ravel()
    kept = there & home & (away_px < _MAX_RETURN_PX)
    return start[kept, 0], found[kept, 0]


def _follow(first: Image, second: Image, points: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Points (points, 1, 2) by Lucas-Kanade, and whether each was found."""
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        points,
        None,  # type: ignore[call-overload]  # no initial guess; the stub wants an array
        winSize=(21, 21),
        maxLevel=4,
    )
    return np.asarray(found, np.float32), np.asarray(status).ravel() > 0


def _number(name: str) -> int:
    """A number that a name always gives."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
