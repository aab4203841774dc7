"""A video with its pictures changed and everything else kept: times, sound, subtitles, tags."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import av

from deepstab.errors import VideoError
from deepstab.image import Image
from deepstab.video import color
from deepstab.video.ahead import ahead, in_thread
from deepstab.video.encoder import EncoderSettings, H264Encoder, StreamFormat, pixel_format_for
from deepstab.video.passthrough import Passthrough
from deepstab.video.reader import DecodedFrame, VideoReader
from deepstab.video.writer import as_video_error, output_container

logger = logging.getLogger(__name__)

Picture = TypeVar("Picture")
Encoded = TypeVar("Encoded", contravariant=True)
Transform = Callable[[Iterator[Picture]], Iterator[Picture]]

# A constant, because the bytes x264 writes depend on it.
_ENCODER_THREADS = 4
# Formats that become 8-bit yuv420p without losing depth or color resolution.
_KEPT_FORMATS = frozenset({"yuv420p", "yuvj420p", "nv12", "nv21", "gray"})


@dataclass(frozen=True)
class _Timed(Generic[Picture]):
    picture: Picture
    pts: int
    duration: int


class _Encode(Protocol[Encoded]):
    """Compresses one picture."""

    def __call__(
        self, picture: Encoded, /, *, pts: int, duration: int
    ) -> list[av.Packet[av.VideoStream]]: ...


@dataclass(frozen=True)
class _Pixels(Generic[Picture]):
    """How pictures are handed to a transform and taken back."""

    read: Callable[[VideoReader, DecodedFrame], Picture]
    encode: Callable[[H264Encoder], _Encode[Picture]]


def rewrite_video(
    source: Path,
    destination: Path,
    transform: Transform[Image],
    *,
    crf: int,
    preset: str,
    size: tuple[int, int] | None = None,
) -> int:
    """Pass the frames of a video through a function and keep all the rest.

    Frame size (unless `size` names another), frame count, timestamps (variable rates too), color
    tags, pixel aspect ratio, display rotation, metadata and chapters come out as they went in.
    Sound, subtitles and other streams are copied without re-encoding; one that the output format
    cannot carry is left out with a warning in the log. Pictures become 8-bit H.264, yuv420p
    (yuv444p for an odd size).
    Matroska counts milliseconds: only there times are rounded. A broadcast recording, whose
    clock starts anywhere, comes out starting at zero.

    Decoding, `transform` and encoding overlap; memory grows with the frames `transform` holds
    back, not with the length of the video.

    Args:
        source: a video of any format libav decodes.
        destination: the file to appear when it is whole: .mp4, .m4v, .mov or .mkv.
        transform: given an iterator over (height, width, 3) uint8 RGB frames in coded
            orientation, yields one frame for each, in order. It may read ahead.
        crf: constant rate factor of x264, 0 (lossless) to 51 (worst).
        preset: speed of x264, "ultrafast" to "veryslow".
        size: (width, height) of the frames that `transform` yields, px; the input's when None.

    Returns:
        The number of frames written.

    Raises:
        VideoError: `source` cannot be decoded to its end, `destination` is the same file or
            cannot be written.
        ValueError: `transform` yields another number of frames, or a frame of another size.
    """
    pixels = _Pixels(VideoReader.to_rgb, lambda encoder: encoder.encode)
    settings = EncoderSettings(crf=crf, preset=preset, num_threads=_ENCODER_THREADS)
    with _opened(source, destination, settings, size=size) as ends:
        return _run(ends, transform, pixels)


def rewrite_planes(
    source: Path,
    destination: Path,
    transform: Transform[color.Planes],
    *,
    crf: int,
    preset: str,
    comment: str | None = None,
) -> int:
    """Pass the planes of a video's frames through a function and keep all the rest.

    As `rewrite_video`, but `transform` gets and yields luma, blue and red chroma, each
    (height, width) uint8 of its own size, in the format that is written: what the file holds is
    neither converted nor rounded, and in yuv420p it is half as much as RGB. A `comment` is added
    to the comment tag as a line below what that says already.
    """

    def read(reader: VideoReader, frame: DecodedFrame) -> color.Planes:
        written_format = pixel_format_for(frame.image.width, frame.image.height)
        return color.to_planes(frame.image, reader.tags(frame), written_format)

    pixels = _Pixels(read, lambda encoder: encoder.encode_planes)
    settings = EncoderSettings(crf=crf, preset=preset, num_threads=_ENCODER_THREADS)
    with _opened(source, destination, settings, size=None) as ends:
        if comment is not None:
            _add_comment(ends.container, comment)
        return _run(ends, transform, pixels)


@dataclass(frozen=True)
class _Ends:
    """The two ends of a rewrite: where frames come from, and where they go."""

    reader: VideoReader
    frames: Iterator[DecodedFrame]
    passthrough: Passthrough
    container: av.container.OutputContainer
    encoder: H264Encoder
    destination: Path


@contextmanager
def _opened(
    source: Path,
    destination: Path,
    settings: EncoderSettings,
    *,
    size: tuple[int, int] | None,
) -> Iterator[_Ends]:
    """Open the input and the output, whose header is not written yet."""
    with VideoReader(source) as reader:
        if destination.exists() and destination.samefile(source):
            raise VideoError(
                f"video {destination} is both input and output; choose another output name"
            )
        passthrough = Passthrough(reader)
        frames = reader.decode(on_packet=passthrough.hold)
        first = next(frames)
        size = size or (first.image.width, first.image.height)
        with output_container(destination, time_base=reader.time_base) as container:
            _warn_of_losses(reader, first.image, pixel_format_for(*size))
            stream_format = StreamFormat(
                width=size[0],
                height=size[1],
                time_base=reader.time_base,
                frame_rate=reader.frame_rate,
                tags=reader.tags(first),
            )
            encoder = H264Encoder(container, stream_format, settings)
            passthrough.keep_display(first, encoder.stream, destination)
            passthrough.add_streams(container, destination)
            frames = itertools.chain([first], frames)
            yield _Ends(reader, frames, passthrough, container, encoder, destination)


def _run(ends: _Ends, transform: Transform[Picture], pixels: _Pixels[Picture]) -> int:
    """Decode, transform and encode in three threads; `transform` runs in the calling one."""
    shift = round(ends.passthrough.start_s / ends.reader.time_base)
    encode = pixels.encode(ends.encoder)

    def write(frame: _Timed[Picture]) -> None:
        with as_video_error(ends.destination):
            _mux(ends, encode(frame.picture, pts=frame.pts - shift, duration=frame.duration))

    decoded = ahead(
        (
            _Timed(pixels.read(ends.reader, frame), frame.pts, frame.duration)
            for frame in ends.frames
        ),
        name="deepstab-decode",
    )
    with (
        closing(decoded),
        closing(_transformed(transform, _Given(decoded))) as transformed,
        closing(in_thread(write, transformed, name="deepstab-encode")) as written,
    ):
        num_frames = sum(1 for _ in written)
    with as_video_error(ends.destination):
        _mux(ends, ends.encoder.flush())
        ends.passthrough.release(ends.container)
    return num_frames


def _transformed(
    transform: Transform[Picture], given: _Given[Picture]
) -> Generator[_Timed[Picture], None, None]:
    """Transform pictures, each of which keeps the time of the one it was made from."""
    transformed = transform(given)
    num_frames = 0
    try:
        for picture in transformed:
            if not given.times:
                raise ValueError(
                    f"transform yielded frame {num_frames} before reading it; "
                    "yield exactly one frame for each"
                )
            yield _Timed(picture, *given.times.popleft())
            num_frames += 1
        if next(given, None) is not None or given.times:
            raise ValueError(
                f"transform ended after {num_frames} frames while the video has more; "
                "yield exactly one frame for each"
            )
        if given.error is not None:
            raise given.error
    finally:
        if isinstance(transformed, Generator):
            transformed.close()


class _Given(Iterator[Picture]):
    """The pictures given to a transform, which cannot hide that decoding them failed.

    Attributes:
        times: time stamp and duration of those that were given and have not come back.
        error: why there are no more, None at the end of the video.
    """

    def __init__(self, decoded: Iterator[_Timed[Picture]]) -> None:
        self._decoded = decoded
        self.times: deque[tuple[int, int]] = deque()
        self.error: Exception | None = None

    def __next__(self) -> Picture:
        try:
            frame = next(self._decoded)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        self.times.append((frame.pts, frame.duration))
        return frame.picture


def _mux(ends: _Ends, packets: list[av.Packet[av.VideoStream]]) -> None:
    """Write packets of the video, and what belongs beside them."""
    for packet in packets:
        if packet.dts is not None:
            ends.passthrough.release(ends.container, float(packet.dts * packet.time_base))
        ends.container.mux_one(packet)


def _add_comment(container: av.container.OutputContainer, line: str) -> None:
    """Add a line to the comment, before the header is written; Matroska's tags are in capitals."""
    key = next((key for key in container.metadata if key.lower() == "comment"), "comment")
    before = container.metadata.get(key)
    container.metadata[key] = f"{before}\n{line}" if before else line


def _has_alpha(image: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in image.format.components)


def _warn_of_losses(reader: VideoReader, image: av.VideoFrame, written_format: str) -> None:
    path = reader.path
    if reader.stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9 keep it beside the picture
        logger.warning("%s: it is written without its transparency", path)
    if image.format.name not in _KEPT_FORMATS:
        logger.warning(
            "%s: pixel format %s is written as 8-bit %s, which players and browsers show%s",
            path,
            image.format.name,
            written_format,
            ", without its transparency" if _has_alpha(image) else "",
        )
    elif written_format != "yuv420p":
        logger.warning(
            "%s: H.264 cannot keep the odd size %dx%d in yuv420p, yuv444p is written; "
            "Safari and some devices cannot play it",
            path,
            image.width,
            image.height,
        )
    if image.interlaced_frame:
        logger.warning("%s: frames are interlaced; deinterlace first for a clean result", path)
