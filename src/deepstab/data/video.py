"""Video files: what one holds, its frames, and writing frames to a new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from deepstab.data import color, encoding
from deepstab.data.decoding import VideoReader
from deepstab.data.remux import rewrite_planes, rewrite_video
from deepstab.errors import VideoError

__all__ = [
    "VideoInfo",
    "count_frames",
    "probe",
    "read_comment",
    "read_frames",
    "rewrite_planes",
    "rewrite_video",
    "write_video",
]

# ITU-T H.273: BT.709 matrix, limited range, BT.709 primaries, sRGB-like transfer of BT.709.
_BT709 = color.ColorTags(matrix=1, range=1, primaries=1, transfer=1)
_MAX_DENOMINATOR = 1_000_000


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


def probe(path: Path) -> VideoInfo:
    """Read what the file at `path` says about its main video stream, and its first frame.

    Raises:
        VideoError: the file is missing, not a video, holds only sound, or cannot be decoded.
    """
    with VideoReader(path) as reader:
        image = next(reader.decode()).image
        stream, container = reader.stream, reader.container
        duration_s = None
        if stream.duration is not None:
            duration_s = float(stream.duration * reader.time_base)
        elif container.duration is not None:
            duration_s = container.duration / 1_000_000
        return VideoInfo(
            width=image.width,
            height=image.height,
            frame_rate=reader.frame_rate,
            num_frames=stream.frames or None,
            duration_s=duration_s,
            rotation_deg=int(image.rotation),
            has_audio=bool(container.streams.audio),
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


def read_frames(path: Path, *, size: tuple[int, int] | None = None) -> Iterator[color.Frame]:
    """Decode the frames of a video one by one.

    Args:
        path: a video of any format libav decodes.
        size: (width, height) to resize to, px, by area when shrinking; much faster than resizing
            afterwards. None keeps the size.

    Yields:
        (height, width, 3) uint8 RGB in presentation order, in coded orientation (a display
        rotation is not applied). Each array is the caller's own.

    Raises:
        VideoError: the file cannot be opened, holds no frame, is damaged or cut short. Frames
            before the damage are yielded first.
    """
    with VideoReader(path) as reader:
        for frame in reader.decode():
            yield reader.to_rgb(frame, size)


def count_frames(path: Path) -> int:
    """Count the frames of a video by decoding it, as headers are often wrong.

    Raises:
        VideoError: as `read_frames`.
    """
    with VideoReader(path) as reader:
        return sum(1 for _ in reader.decode())


def write_video(
    path: Path,
    frames: Iterable[color.Frame],
    *,
    frame_rate: Fraction,
    crf: int,
    preset: str = "medium",
    num_threads: int = 1,
) -> int:
    """Write frames as H.264 at a constant rate; the same frames give the same bytes.

    Args:
        path: the file to appear when it is whole: .mp4, .m4v, .mov or .mkv.
        frames: (height, width, 3) uint8 RGB, at least one, all of one size. An odd height or
            width is kept by writing yuv444p instead of yuv420p.
        frame_rate: frames/s.
        crf: constant rate factor of x264, 0 (lossless) to 51 (worst).
        preset: speed of x264, "ultrafast" to "veryslow".
        num_threads: threads of x264; the bytes depend on it.

    Returns:
        The number of frames written.

    Raises:
        VideoError: there is no frame, or the file cannot be written.
        ValueError: a frame has another size or type than the first.
    """
    settings = encoding.EncoderSettings(crf=crf, preset=preset, num_threads=num_threads)
    # libav's fractions have 32 bits, a float's have more.
    time_base = (1 / frame_rate).limit_denominator(_MAX_DENOMINATOR)
    num_frames = 0
    with encoding.output_container(path, time_base=time_base) as container:
        encoder: encoding.H264Encoder | None = None
        for rgb in frames:
            if encoder is None:
                encoder = encoding.H264Encoder(
                    container,
                    width=rgb.shape[1],
                    height=rgb.shape[0],
                    time_base=time_base,
                    frame_rate=1 / time_base,
                    tags=_BT709,
                    settings=settings,
                )
            with encoding.as_video_error(path):
                container.mux(encoder.encode(rgb, pts=num_frames, duration=1))
            num_frames += 1
        if encoder is None:
            raise VideoError(f"video {path} would hold no frame; give at least one")
        with encoding.as_video_error(path):
            container.mux(encoder.flush())
    return num_frames
