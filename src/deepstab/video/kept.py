"""The frames of a video, kept in memory from one pass over it for the next."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from deepstab.image import Image
from deepstab.video.color import Planes, to_planes
from deepstab.video.encoder import pixel_format_for
from deepstab.video.reader import DecodedFrame, VideoReader

# 36 s of 1280x720 at 30 frames/s; of larger pictures, whose decoding is as small a part, less.
_MOST_BYTES = 3 * 2**29
_SHARE_OF_MEMORY = 1 / 4
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class KeptFrames:
    """The planes and times of all frames of a video, or none if there is no room for all."""

    def __init__(self, most_bytes: int) -> None:
        """Keep so many bytes at most."""
        self._most_bytes = most_bytes
        self._frames: list[tuple[Planes, int, int]] = []
        self._room: Image | None = None
        self._used = 0
        self._is_given_up = False
        self._file: tuple[int, int] | None = None

    def add(self, reader: VideoReader, frame: DecodedFrame) -> None:
        """Copy the next frame, unless there is no room for as many as the file declares."""
        if self._is_given_up:
            return
        planes = planes_of(reader, frame)
        num_bytes = sum(plane.size for plane in planes)
        if self._room is None:
            declared = num_bytes * (reader.expected_frames or self._most_bytes)
            is_enough = declared <= self._most_bytes
            # Memory is taken where it is written to, here in large pages, since it is one array:
            # these are several times as fast to come by.
            self._room = np.empty(self._most_bytes if is_enough else 0, np.uint8)
        if self._used + num_bytes > len(self._room):
            self._give_up()
            return
        self._frames.append((self._copied(planes), frame.pts, frame.duration))

    def _copied(self, planes: Planes) -> Planes:
        assert self._room is not None
        copies = []
        for plane in planes:
            copy = self._room[self._used : self._used + plane.size].reshape(plane.shape)
            copy[:] = plane
            self._used += plane.size
            copies.append(copy)
        luma, blue, red = copies
        return luma, blue, red

    def _give_up(self) -> None:
        self._is_given_up, self._room = True, None
        self._frames.clear()

    def end(self, path: Path) -> None:
        """Say that the last frame of the video at `path` was added."""
        if not self._is_given_up:
            self._file = _state(path)

    def are_of(self, path: Path) -> bool:
        """Whether these are all frames of the video at `path`, as it is now."""
        return self._file is not None and self._file == _state(path)

    def __iter__(self) -> Iterator[tuple[Planes, int, int]]:
        """The planes of each frame, not to be written to, its time stamp and its duration."""
        return iter(self._frames)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # Reading it again will tell.
        return None
    return status.st_size, status.st_mtime_ns


def planes_of(reader: VideoReader, frame: DecodedFrame) -> Planes:
    """The planes of a frame in the format that a rewritten video has, see `color.to_planes`.

    Raises:
        VideoError: its color matrix is not supported.
    """
    written_format = pixel_format_for(frame.image.width, frame.image.height)
    return to_planes(frame.image, reader.tags(frame), written_format)


def spare_bytes() -> int:
    """Memory for the frames of one video, if every core has one: a quarter of what may be used.

    At most 1.5 GiB.
    """
    memory = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
    memory += [limit for limit in limits if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):  # No such limit, or "max".
        memory.append(int(_CGROUP_LIMIT.read_text()))
    return min(_MOST_BYTES, int(min(memory) * _SHARE_OF_MEMORY) // (os.cpu_count() or 1))
