"""Video files: what one holds, and its frames."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from deepstab.image import Image
from deepstab.video.ahead import ahead, in_thread
from deepstab.video.limits import UNLIMITED, Limits
from deepstab.video.reader import VideoReader

# Each is held as it was decoded until it is resized.
_FRAMES_SHRUNK = 3


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its main video stream.

    Attributes:
        width: of the decoded frames, before any display rotation, px.
        height: of the decoded frames, before any display rotation, px.
        frame_rate: average, frames/s.
        num_frames: as the container claims, None when it does not; `count_frames` counts.
        duration_s: s, None when unknown.
        rotation_deg: counterclockwise turn a player applies, in [-180, 180], as ffprobe prints it.
        has_audio: whether there is at least one audio stream.
        pixel_format: libav's name, such as "yuv420p".
    """

    width: int
    height: int
    frame_rate: Fraction
    num_frames: int | None
    duration_s: float | None
    rotation_deg: int
    has_audio: bool
    pixel_format: str


def probe(path: Path, *, limits: Limits = UNLIMITED) -> VideoInfo:
    """Read what the file at `path` says about its main video stream, and its first frame.

    Raises:
        VideoError: the file is missing, not a video, holds only sound, cannot be decoded, or is
            beyond the limits.
    """
    with VideoReader(path, limits=limits) as reader:
        image = next(reader.decode()).image
        stream = reader.stream
        return VideoInfo(
            width=image.width,
            height=image.height,
            frame_rate=reader.frame_rate,
            num_frames=stream.frames or None,
            duration_s=reader.duration_s,
            rotation_deg=int(image.rotation),
            has_audio=bool(reader.container.streams.audio),
            pixel_format=image.format.name,
        )


def read_comment(path: Path) -> str:
    """Read the comment tag of a video, empty when it has none.

    Raises:
        VideoError: as `probe`.
    """
    with VideoReader(path) as reader:
        tags = {key.lower(): value for key, value in reader.container.metadata.items()}
        return tags.get("comment", "")


def read_frames(
    path: Path, *, size: tuple[int, int] | None = None, limits: Limits = UNLIMITED
) -> Iterator[Image]:
    """Decode the frames of a video one by one.

    Args:
        path: a video of any format libav decodes.
        size: (width, height) to resize to, px, by area when shrinking; much faster than resizing
            afterwards. None keeps the size.
        limits: what is beyond is refused before it is decoded, where headers tell.

    Yields:
        (height, width, 3) uint8 RGB in presentation order, in coded orientation (a display
        rotation is not applied). Each array is the caller's own.

    Raises:
        VideoError: the file cannot be opened, holds no frame, is damaged or cut short. Frames
            before the damage are yielded first.
    """
    with VideoReader(path, limits=limits) as reader:
        for frame in reader.decode():
            yield reader.to_rgb(frame, size)


def read_frames_ahead(path: Path, *, size: tuple[int, int]) -> Generator[Image, None, None]:
    """As `read_frames`, but decoded in one thread and resized in another, a few frames ahead.

    Of a damaged video the last frames before the damage are not yielded.
    """
    with (
        VideoReader(path) as reader,
        closing(ahead(reader.decode(), name="deepstab-decode")) as decoded,
        closing(
            in_thread(
                lambda frame: reader.to_rgb(frame, size),
                decoded,
                name="deepstab-shrink",
                most_waiting=_FRAMES_SHRUNK,
            )
        ) as shrunk,
    ):
        yield from shrunk


def count_frames(path: Path, *, limits: Limits = UNLIMITED) -> int:
    """Count the frames of a video by decoding it, as headers are often wrong.

    Raises:
        VideoError: as `read_frames`.
    """
    with VideoReader(path, limits=limits) as reader:
        return sum(1 for _ in reader.decode())
