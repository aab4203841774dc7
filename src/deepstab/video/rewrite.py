"""A video with its pictures changed and everything else kept: times, sound, subtitles, tags."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Generic, Protocol, TypeVar

import av
import numpy as np
from av.sidedata.sidedata import SideData

from deepstab.errors import VideoError
from deepstab.video import color
from deepstab.video import writer as encoding
from deepstab.video.ahead import Channel, ClosedError
from deepstab.video.passthrough import Passthrough, kept_stream_tags
from deepstab.video.reader import DecodedFrame, VideoReader

logger = logging.getLogger(__name__)

Picture = TypeVar("Picture")
Encoded = TypeVar("Encoded", contravariant=True)
Transform = Callable[[Iterator[Picture]], Iterator[Picture]]

# Frames waiting between two threads: enough to even out, little enough to hold in memory at 4K.
_QUEUE_LENGTH = 8
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
    encode: Callable[[encoding.H264Encoder], _Encode[Picture]]


def rewrite_video(
    source: Path,
    destination: Path,
    transform: Transform[color.Frame],
    *,
    crf: int,
    preset: str,
    size: tuple[int, int] | None = None,
    comment: str | None = None,
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
        comment: a line to add to the comment tag, below what it says already.

    Returns:
        The number of frames written.

    Raises:
        VideoError: `source` cannot be decoded to its end, `destination` is the same file or
            cannot be written.
        ValueError: `transform` yields another number of frames, or a frame of another size.
    """
    pixels = _Pixels(VideoReader.to_rgb, lambda encoder: encoder.encode)
    settings = encoding.EncoderSettings(crf=crf, preset=preset, num_threads=_ENCODER_THREADS)
    return _rewrite(source, destination, transform, pixels, settings, size=size, comment=comment)


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
    neither converted nor rounded, and in yuv420p it is half as much as RGB.
    """

    def read(reader: VideoReader, frame: DecodedFrame) -> color.Planes:
        written_format = encoding.pixel_format_for(frame.image.width, frame.image.height)
        return color.to_planes(frame.image, reader.tags(frame), written_format)

    pixels = _Pixels(read, lambda encoder: encoder.encode_planes)
    settings = encoding.EncoderSettings(crf=crf, preset=preset, num_threads=_ENCODER_THREADS)
    return _rewrite(source, destination, transform, pixels, settings, size=None, comment=comment)


def _rewrite(
    source: Path,
    destination: Path,
    transform: Transform[Picture],
    pixels: _Pixels[Picture],
    settings: encoding.EncoderSettings,
    *,
    size: tuple[int, int] | None,
    comment: str | None,
) -> int:
    with VideoReader(source) as reader:
        if destination.exists() and destination.samefile(source):
            raise VideoError(
                f"video {destination} is both input and output; choose another output name"
            )
        passthrough = Passthrough(reader)
        frames = reader.decode(on_packet=passthrough.hold)
        first = next(frames)
        with encoding.output_container(destination, time_base=reader.time_base) as container:
            size = size or (first.image.width, first.image.height)
            writer = _Writer(reader, first, passthrough, container, destination, settings, size)
            if comment is not None:
                _add_comment(container, comment)
            return _run(reader, itertools.chain([first], frames), transform, writer, pixels)


def _run(
    reader: VideoReader,
    frames: Iterator[DecodedFrame],
    transform: Transform[Picture],
    writer: _Writer,
    pixels: _Pixels[Picture],
) -> int:
    """Decode, transform and encode in three threads; `transform` runs in the calling one."""
    decoded: Channel[Picture] = Channel(_QUEUE_LENGTH)
    finished: Channel[_Timed[Picture]] = Channel(_QUEUE_LENGTH)
    times: deque[tuple[int, int]] = deque()
    decoder = Thread(
        target=_decode, args=(reader, frames, decoded, times, pixels), name="deepstab-decode"
    )
    encoder = Thread(target=writer.run, args=(finished, pixels), name="deepstab-encode")
    given = _Counted(decoded)
    transformed: Iterator[Picture] | None = None
    num_frames = 0
    try:
        decoder.start()
        encoder.start()
        transformed = transform(given)
        for picture in transformed:
            if num_frames == given.count:
                raise ValueError(
                    f"transform yielded frame {num_frames} before reading it; "
                    "yield exactly one frame for each"
                )
            pts, duration = times.popleft()
            finished.put(_Timed(picture, pts, duration))
            num_frames += 1
        if next(given, None) is not None or num_frames < given.count:
            raise ValueError(
                f"transform ended after {num_frames} frames while the video has more; "
                "yield exactly one frame for each"
            )
        if decoded.error is not None:
            raise decoded.error
        finished.close()
        encoder.join()
    except ClosedError:
        pass  # The encoder failed; its own error is raised below.
    finally:
        decoded.cancel()
        finished.cancel()
        for thread in (decoder, encoder):
            if thread.ident is not None:
                thread.join()
        if isinstance(transformed, Generator):
            transformed.close()
    if writer.error is not None:
        raise writer.error
    return num_frames


def _decode(
    reader: VideoReader,
    frames: Iterator[DecodedFrame],
    decoded: Channel[Picture],
    times: deque[tuple[int, int]],
    pixels: _Pixels[Picture],
) -> None:
    try:
        for frame in frames:
            times.append((frame.pts, frame.duration))
            decoded.put(pixels.read(reader, frame))
    except ClosedError:
        pass  # Nobody wants more frames.
    except BaseException as error:
        decoded.close(error)
    else:
        decoded.close()


class _Counted(Iterator[Picture]):
    """An iterator that knows how many frames it gave."""

    def __init__(self, channel: Channel[Picture]) -> None:
        self._frames = iter(channel)
        self.count = 0

    def __next__(self) -> Picture:
        frame = next(self._frames)
        self.count += 1
        return frame


class _Writer:
    """The encoding end: pictures compressed, other streams released beside them."""

    def __init__(
        self,
        reader: VideoReader,
        first: DecodedFrame,
        passthrough: Passthrough,
        container: av.container.OutputContainer,
        path: Path,
        settings: encoding.EncoderSettings,
        size: tuple[int, int],
    ) -> None:
        self.error: BaseException | None = None
        self._path = path
        self._container = container
        self._passthrough = passthrough
        self._shift = round(passthrough.start_s / reader.time_base)
        image = first.image
        width, height = size
        _warn_of_losses(reader.path, image, encoding.pixel_format_for(width, height))
        self._encoder = encoding.H264Encoder(
            container,
            width=width,
            height=height,
            time_base=reader.time_base,
            frame_rate=reader.frame_rate,
            tags=reader.tags(first),
            settings=settings,
        )
        stream = self._encoder.stream
        if reader.stream.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = reader.stream.sample_aspect_ratio
        matrix = image.side_data.get("DISPLAYMATRIX")
        if isinstance(matrix, SideData):
            display = np.frombuffer(bytes(matrix), np.int32).astype(float)
            stream.set_display_matrix([int(value) for value in display])
            is_mirrored = display[0] * display[4] < display[1] * display[3]
            if is_mirrored and container.format.name == "matroska":
                logger.warning("%s: Matroska cannot mirror a picture as %s does", path, reader.path)
        stream.metadata.update(kept_stream_tags(reader.stream))
        stream.disposition = reader.stream.disposition
        passthrough.add_streams(container, path)

    def run(self, finished: Channel[_Timed[Picture]], pixels: _Pixels[Picture]) -> None:
        """Write what `finished` brings; what fails is kept in `error`."""
        try:
            encode = pixels.encode(self._encoder)
            with encoding.as_video_error(self._path):
                for frame in finished:
                    pts = frame.pts - self._shift
                    self._mux(encode(frame.picture, pts=pts, duration=frame.duration))
                self._mux(self._encoder.flush())
                self._passthrough.release(self._container)
        except ClosedError:
            pass  # Given up; the reason is raised by who gave up.
        except BaseException as error:
            self.error = error
            finished.cancel()

    def _mux(self, packets: list[av.Packet[av.VideoStream]]) -> None:
        for packet in packets:
            if packet.dts is not None:
                self._passthrough.release(self._container, float(packet.dts * packet.time_base))
            self._container.mux_one(packet)


def _add_comment(container: av.container.OutputContainer, line: str) -> None:
    """Add a line to the comment, before the header is written; Matroska's tags are in capitals."""
    key = next((key for key in container.metadata if key.lower() == "comment"), "comment")
    before = container.metadata.get(key)
    container.metadata[key] = f"{before}\n{line}" if before else line


def _warn_of_losses(path: Path, image: av.VideoFrame, written_format: str) -> None:
    if image.format.name not in _KEPT_FORMATS:
        logger.warning(
            "%s: pixel format %s is written as 8-bit %s, which players and browsers show",
            path,
            image.format.name,
            written_format,
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
