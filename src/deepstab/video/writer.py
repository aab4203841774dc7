"""Encoding H.264 that plays in a browser, to a file that appears only when it is whole."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2

from deepstab.errors import VideoError
from deepstab.video import color

# Container formats that hold H.264 for players, by suffix.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# The muxer's own choice for a track: units above this, by doubling, so that times stay exact.
_MIN_TIMESCALE = 10_000
# ITU-T H.273: BT.709 matrix, limited range, BT.709 primaries, sRGB-like transfer of BT.709.
_BT709 = color.ColorTags(matrix=1, range=1, primaries=1, transfer=1)
# libav's fractions have 32 bits, a float's have more.
_MAX_DENOMINATOR = 1_000_000
# OpenCV's CPU_AVX_512F, which its Python module does not name.
_AVX_512F = 13


@dataclass(frozen=True)
class EncoderSettings:
    """How pictures are compressed.

    Attributes:
        crf: constant rate factor of x264, 0 (lossless) to 51 (worst).
        preset: speed of x264, "ultrafast" to "veryslow".
        num_threads: threads of x264; the bytes written depend on it.
    """

    crf: int
    preset: str
    num_threads: int


class H264Encoder:
    """One H.264 stream of an open container.

    Even sizes become yuv420p, which every browser plays. H.264 cannot state an odd size in 4:2:0
    (even its cropping counts in pairs of pixels), so an odd size becomes yuv444p: the size is
    kept, and players without High 4:4:4 Predictive (Safari, hardware) cannot show it.

    Attributes:
        stream: the stream it added to the container.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        frame_rate: Fraction,
        tags: color.ColorTags,
        settings: EncoderSettings,
    ) -> None:
        """Add the stream; the container's header must not be written yet.

        Args:
            container: where the packets will go.
            width: px.
            height: px.
            time_base: unit of the timestamps, s.
            frame_rate: average, frames/s.
            tags: how the samples shall be meant.
            settings: how pictures are compressed.
        """
        self._tags = tags
        self._size = (height, width)
        self.stream = container.add_stream("libx264", rate=frame_rate, time_base=time_base)
        codec = self.stream.codec_context
        codec.width = width
        codec.height = height
        codec.pix_fmt = pixel_format_for(width, height)
        codec.color_range = tags.range
        codec.colorspace = tags.matrix
        codec.color_primaries = tags.primaries
        codec.color_trc = tags.transfer
        codec.thread_count = settings.num_threads
        # Slices, PyAV's default, would cost quality.
        codec.thread_type = av.codec.context.ThreadType.FRAME
        codec.flags |= av.codec.context.Flags.frame_duration
        codec.options = {"crf": str(settings.crf), "preset": settings.preset} | _instructions()

    def encode(
        self, rgb: color.Frame, *, pts: int, duration: int
    ) -> list[av.Packet[av.VideoStream]]:
        """Compress one frame.

        Args:
            rgb: (height, width, 3) uint8 RGB.
            pts: presentation time in units of the time base, above the last one.
            duration: in the same units.

        Returns:
            The packets that are ready; x264 holds some frames back.

        Raises:
            ValueError: the frame has another size or type.
        """
        if rgb.shape != (*self._size, 3) or rgb.dtype != "uint8":
            raise ValueError(
                f"a frame of {self._size[1]}x{self._size[0]} RGB uint8 is needed, "
                f"got shape {rgb.shape} of {rgb.dtype}; yield frames of the input's size"
            )
        frame = color.to_yuv(rgb, self._tags, pixel_format_for(self._size[1], self._size[0]))
        return self._encode(frame, pts=pts, duration=duration)

    def encode_planes(
        self, planes: color.Planes, *, pts: int, duration: int
    ) -> list[av.Packet[av.VideoStream]]:
        """Compress one frame given as planes of the stream's pixel format; else as `encode`.

        Raises:
            ValueError: the frame has another size.
        """
        if planes[0].shape != self._size:
            raise ValueError(
                f"planes of {self._size[1]}x{self._size[0]} are needed, got {planes[0].shape}; "
                "yield frames of the input's size"
            )
        frame = color.from_planes(planes, self._tags, pixel_format_for(*self._size[::-1]))
        return self._encode(frame, pts=pts, duration=duration)

    def _encode(
        self, frame: av.VideoFrame, *, pts: int, duration: int
    ) -> list[av.Packet[av.VideoStream]]:
        frame.pts = pts
        frame.duration = duration
        frame.time_base = self.stream.codec_context.time_base
        return self.stream.encode(frame)

    def flush(self) -> list[av.Packet[av.VideoStream]]:
        """Return the packets x264 still holds."""
        return self.stream.encode(None)


def pixel_format_for(width: int, height: int) -> str:
    """Return the pixel format in which H.264 keeps a size in px."""
    return "yuv444p" if width % 2 or height % 2 else "yuv420p"


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
    temporary = path.absolute().with_name(f".deepstab-{uuid.uuid4().hex}.part")
    with as_video_error(path):
        temporary.touch(exist_ok=False)
    container: av.container.OutputContainer | None = None
    try:
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
            temporary.replace(path)
    finally:
        # Removed before closing: a muxer that cannot reopen the file gives up at once instead of
        # moving gigabytes to put an index in front.
        temporary.unlink(missing_ok=True)
        if container is not None:
            with suppress(av.FFmpegError):
                container.close()


def _instructions() -> dict[str, str]:
    """Keep x264 from AVX-512, which gave other pixels from run to run on a busy virtual machine."""
    if not cv2.checkHardwareSupport(_AVX_512F):
        return {}
    return {"x264-params": "asm=MMX2,SSE2Fast,SSSE3,SSE4.2,AVX,FMA3,BMI2,AVX2"}


def _mp4_options(time_base: Fraction) -> dict[str, str]:
    """Put the index in front, for browsers, and keep a late start exact, not rounded to 1 ms."""
    timescale = time_base.denominator
    while timescale < _MIN_TIMESCALE:
        timescale *= 2
    return {"movflags": "+faststart", "movie_timescale": str(timescale)}


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
    settings = EncoderSettings(crf=crf, preset=preset, num_threads=num_threads)
    time_base = (1 / frame_rate).limit_denominator(_MAX_DENOMINATOR)
    num_frames = 0
    with output_container(path, time_base=time_base) as container:
        encoder: H264Encoder | None = None
        for rgb in frames:
            if encoder is None:
                encoder = H264Encoder(
                    container,
                    width=rgb.shape[1],
                    height=rgb.shape[0],
                    time_base=time_base,
                    frame_rate=1 / time_base,
                    tags=_BT709,
                    settings=settings,
                )
            with as_video_error(path):
                container.mux(encoder.encode(rgb, pts=num_frames, duration=1))
            num_frames += 1
        if encoder is None:
            raise VideoError(f"video {path} would hold no frame; give at least one")
        with as_video_error(path):
            container.mux(encoder.flush())
    return num_frames
