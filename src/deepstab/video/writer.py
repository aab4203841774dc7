"""Frames to a video file that appears only when it is whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av

from deepstab.errors import VideoError
from deepstab.files import whole_or_absent
from deepstab.image import Image
from deepstab.video import color
from deepstab.video.encoder import EncoderSettings, H264Encoder, StreamFormat

# Container formats that hold H.264 for players, by suffix.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# The muxer's own choice for a track: units above this, by doubling, so that times stay exact.
_MIN_TIMESCALE = 10_000
# ITU-T H.273: BT.709 matrix, limited range, BT.709 primaries, sRGB-like transfer of BT.709.
_BT709 = color.ColorTags(matrix=1, range=1, primaries=1, transfer=1)
# libav's fractions have 32 bits, a float's have more.
_MAX_DENOMINATOR = 1_000_000


def format_for(path: Path) -> str:
    """Return the container format that the suffix of `path` names.

    Raises:
        VideoError: the suffix names none that holds H.264 for players.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise VideoError(
            f"video {path} cannot be written: {path.suffix or 'no suffix'} is not one of "
            f"{', '.join(FORMATS)}; choose one of these"
        ) from None


@contextmanager
def as_video_error(path: Path) -> Iterator[None]:
    """Turn what libav or the system says about writing `path` into one line.

    Raises:
        VideoError: the block failed with an error of libav or the operating system.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"video {path} cannot be written ({error.strerror}); "
            "check the folder's permissions, the free space and the encoder's settings"
        ) from None


@contextmanager
def output_container(path: Path, *, time_base: Fraction) -> Iterator[av.container.OutputContainer]:
    """Open a container that takes the name `path` only when the block succeeds.

    On any exception, an interrupt included, what was written is removed and `path` stays as it was.

    Args:
        path: the file to appear; its suffix names the format.
        time_base: unit of the video's timestamps, s.

    Yields:
        A container that writes to a temporary name in the same folder.

    Raises:
        VideoError: the suffix is unknown, the folder is missing or not writable, `path` is a
            folder, or finishing the file failed.
    """
    format_name = format_for(path)
    if not path.parent.is_dir():
        raise VideoError(
            f"video {path} cannot be written: folder {path.parent} does not exist; create it"
        )
    if path.is_dir():
        raise VideoError(f"video {path} cannot be written: it is a folder; give a file name")
    container: av.container.OutputContainer | None = None
    try:
        with ExitStack() as stack:
            temporary = stack.enter_context(whole_or_absent(path))
            with as_video_error(path):
                temporary.touch(exist_ok=False)
            container = av.open(
                str(temporary),
                "w",
                format=format_name,
                container_options={} if format_name == "matroska" else _mp4_options(time_base),
                metadata_errors="replace",
            )
            yield container
            with as_video_error(path):
                container.close()
                stack.close()
    finally:
        # Only now that the file is gone, if it is not whole: a muxer that cannot reopen it gives
        # up at once instead of moving gigabytes to put an index in front.
        if container is not None:
            with suppress(av.FFmpegError):
                container.close()


def _mp4_options(time_base: Fraction) -> dict[str, str]:
    """Put the index in front, for browsers, and keep a late start exact, not rounded to 1 ms."""
    timescale = time_base.denominator
    while timescale < _MIN_TIMESCALE:
        timescale *= 2
    return {"movflags": "+faststart", "movie_timescale": str(timescale)}


def write_video(
    path: Path,
    frames: Iterable[Image],
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
    settings = EncoderSettings(crf=crf, preset=preset, num_threads=num_threads)
    time_base = (1 / frame_rate).limit_denominator(_MAX_DENOMINATOR)
    num_frames = 0
    with output_container(path, time_base=time_base) as container:
        encoder: H264Encoder | None = None
        for rgb in frames:
            if encoder is None:
                stream_format = StreamFormat(
                    width=rgb.shape[1],
                    height=rgb.shape[0],
                    time_base=time_base,
                    frame_rate=1 / time_base,
                    tags=_BT709,
                )
                encoder = H264Encoder(container, stream_format, settings)
            with as_video_error(path):
                container.mux(encoder.encode(rgb, pts=num_frames, duration=1))
            num_frames += 1
        if encoder is None:
            raise VideoError(f"video {path} would hold no frame; give at least one")
        with as_video_error(path):
            container.mux(encoder.flush())
    return num_frames
