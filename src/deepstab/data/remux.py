"""A video with its pictures changed and everything else kept: times, sound, subtitles, tags."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import av
import numpy as np
from av.sidedata.sidedata import SideData

from deepstab.data import color, encoding
from deepstab.data.channel import Channel, ClosedError
from deepstab.data.decoding import DecodedFrame, VideoReader
from deepstab.data.passthrough import Passthrough, kept_stream_tags
from deepstab.errors import VideoError

logger = logging.getLogger(__name__)

Transform = Callable[[Iterator[color.Frame]], Iterator[color.Frame]]

# Frames waiting between two threads: enough to even out, little enough to hold in memory at 4K.
_QUEUE_LENGTH = 8
# A constant, because the bytes x264 writes depend on it.
_ENCODER_THREADS = 4
# Formats that become 8-bit yuv420p without losing depth or color resolution.
_KEPT_FORMATS = frozenset({"yuv420p", "yuvj420p", "nv12", "nv21", "gray"})


@dataclass(frozen=True)
class _TimedFrame:
    rgb: color.Frame
    pts: int
    duration: int


def rewrite_video(
    source: Path,
    destination: Path,
    transform: Transform,
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
    settings = encoding.EncoderSettings(crf=crf, preset=preset, num_threads=_ENCODER_THREADS)
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
            return _run(reader, itertools.chain([first], frames), transform, writer)


def _run(
    reader: VideoReader, frames: Iterator[DecodedFrame], transform: Transform, writer: _Writer
) -> int:
    """Decode, transform and encode in three threads; `transform` runs in the calling one."""
    decoded: Channel[color.Frame] = Channel(_QUEUE_LENGTH)
    finished: Channel[_TimedFrame] = Channel(_QUEUE_LENGTH)
    times: deque[tuple[int, int]] = deque()
    decoder = Thread(target=_decode, args=(reader, frames, decoded, times), name="deepstab-decode")
    encoder = Thread(target=writer.run, args=(finished,), name="deepstab-encode")
    given = _Counted(decoded)
    transformed: Iterator[color.Frame] | None = None
    num_frames = 0
    try:
        decoder.start()
        encoder.start()
        transformed = transform(given)
        for rgb in transformed:
            if num_frames == given.count:
                raise ValueError(
                    f"transform yielded frame {num_frames} before reading it; "
                    "yield exactly one frame for each"
                )
            pts, duration = times.popleft()
            finished.put(_TimedFrame(rgb, pts, duration))
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
    decoded: Channel[color.Frame],
    times: deque[tuple[int, int]],
) -> None:
    try:
        for frame in frames:
            times.append((frame.pts, frame.duration))
            decoded.put(reader.to_rgb(frame))
    except ClosedError:
        pass  # Nobody wants more frames.
    except BaseException as error:
        decoded.close(error)
    else:
        decoded.close()


class _Counted(Iterator[color.Frame]):
    """An iterator that knows how many frames it gave."""

    def __init__(self, channel: Channel[color.Frame]) -> None:
        self._frames = iter(channel)
        self.count = 0

    def __next__(self) -> color.Frame:
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

    def run(self, finished: Channel[_TimedFrame]) -> None:
        """Write what `finished` brings; what fails is kept in `error`."""
        try:
            with encoding.as_video_error(self._path):
                for frame in finished:
                    self._mux(
                        self._encoder.encode(
                            frame.rgb, pts=frame.pts - self._shift, duration=frame.duration
                        )
                    )
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
