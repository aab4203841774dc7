"""Decoding one video file as a stream, where damage is an error and never a missing frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from deepstab.errors import VideoError
from deepstab.image import Image
from deepstab.video import color
from deepstab.video.completeness import MICROSECONDS, Progress, check_complete
from deepstab.video.limits import UNLIMITED, Limits

# libav's names of the formats that hold a video of their own. Playlists, picture patterns and
# scripts, which libav opens too, whatever their suffix, name other files and network addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,asf,ogg,mpegts,mpeg,mpegvideo,mxf,nut,"
    "ivf,gif,apng,h264,hevc,vvc,obu,m4v,h263,mjpeg,yuv4mpegpipe,dv,rm,wtv"
)
_CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# A packet of MPEG-4 that says "as before" has no picture, and at most so many bytes.
_MOST_BYTES_WITHOUT_PICTURE = 64


@dataclass(frozen=True)
class DecodedFrame:
    """One frame in presentation order.

    Attributes:
        image: the picture, in the pixel format of the file.
        index: position in presentation order, from 0.
        pts: presentation time in units of the stream's time base, strictly increasing.
        duration: in the same units, the average when the file does not say.
    """

    image: av.VideoFrame
    index: int
    pts: int
    duration: int


class VideoReader:
    """The main video stream of one open file.

    Attributes:
        path: the file.
        container: the open container.
        stream: its main video stream; cover art does not count.
        time_base: unit of `DecodedFrame.pts`, s.
        frame_rate: average, frames/s.
    """

    def __init__(self, path: Path, *, limits: Limits = UNLIMITED) -> None:
        """Open `path`.

        Raises:
            VideoError: the file is missing, empty, not a video, holds no video stream, or is beyond
                the limits.
        """
        self.path = path
        self._limits = limits
        self.container = _open(path, limits)
        try:
            self.stream = _main_stream(path, self.container)
            self._check_declared()
        except VideoError:
            self.container.close()
            raise
        stream = self.stream
        self.time_base = Fraction(stream.time_base or Fraction(1, 90_000))
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        self.frame_rate = Fraction(rate) if rate else 1 / self.time_base
        # AVI stores no presentation times. Its demuxer guesses them, and B-frames come out of
        # order; the decoding times are right and only need handing out in presentation order.
        self._times_by_packet = self.container.format.name == "avi"
        # Frame-threaded decoders lose damage: PyAV drops what they still hold when the last packets
        # are damaged, and H.264's marks a damaged frame only now and then in time.
        stream.thread_type = "SLICE"
        if stream.codec_context.name in {"h264", "hevc", "mjpeg"}:
            # The other decoders mark a damaged frame; these tell reliably only when asked to fail.
            stream.codec_context.options = {"err_detect": "explode"}

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.container.close()

    @property
    def duration_s(self) -> float | None:
        """As the headers declare it, s; None where they do not."""
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        declared = self.container.duration
        return None if declared is None else declared / MICROSECONDS

    def _check_declared(self) -> None:
        codec = self.stream.codec_context
        self._limits.check_frame(f"video {self.path}", codec.width, codec.height)
        if self.duration_s is not None:
            self._limits.check_duration(f"video {self.path}", self.duration_s)

    def decode(
        self, on_packet: Callable[[av.Packet[av.stream.Stream]], None] | None = None
    ) -> Iterator[DecodedFrame]:
        """Decode every frame, once.

        Args:
            on_packet: called with each packet of the other streams, in file order.

        Yields:
            Frames in presentation order, all of one size.

        Raises:
            VideoError: there is no frame, a frame is damaged, its size differs from the first
                one's, it is beyond the limits, or the file ends before what its header declares.
        """
        frame_step = max(round(1 / (self.frame_rate * self.time_base)), 1)
        progress = Progress(num_indexed=len(self.stream.index_entries))
        size: tuple[int, int] | None = None
        first_pts: int | None = None
        last_pts: int | None = None
        index = 0
        try:
            for image in self._images(progress, on_packet):
                size = size or (image.width, image.height)
                self._check_frame(image, index, size)
                progress.show(image)
                pts = progress.next_dts() if self._times_by_packet else image.pts
                if pts is None:
                    pts = 0 if last_pts is None else last_pts + frame_step
                elif last_pts is not None and pts <= last_pts:
                    pts = last_pts + 1
                last_pts = pts
                first_pts = pts if first_pts is None else first_pts
                self._limits.check_duration(
                    f"video {self.path}", float((pts - first_pts) * self.time_base)
                )
                yield DecodedFrame(image, index, pts, image.duration or frame_step)
                index += 1
        except av.FFmpegError as error:
            after = f"after frame {index - 1}" if index else "from frame 0"
            raise VideoError(
                f"video {self.path} cannot be decoded {after} ({error.strerror}); replace the file"
            ) from None
        if progress.is_damaged:
            raise self._damaged(index)
        if last_pts is None:
            raise VideoError(f"video {self.path} holds no frame to decode; replace the file")
        progress.num_frames, progress.last_pts = index, last_pts
        check_complete(self.path, self.container, self.stream, progress, frame_step=frame_step)

    def _images(
        self,
        progress: Progress,
        on_packet: Callable[[av.Packet[av.stream.Stream]], None] | None,
    ) -> Iterator[av.VideoFrame]:
        """Decode up to the first packet that is damaged, with all the decoder holds by then."""
        for packet in self.container.demux():
            is_flush = packet.size == 0 and packet.dts is None
            progress.note(packet)
            # Not its stream_index: PyAV leaves that at 0 in the packets that end a stream.
            if packet.stream.index != self.stream.index:
                if on_packet is not None and not is_flush:
                    on_packet(packet)
                continue
            if packet.is_corrupt:
                progress.is_damaged = True
                yield from self.stream.decode(None)
                return
            if not is_flush:
                progress.note_video(packet, keep_dts=self._times_by_packet)
                if self.stream.codec_context.name == "hevc":
                    progress.expect(packet)
            images = self.stream.decode(packet)
            if not images and self._is_due(packet):
                progress.is_damaged = True
                return
            yield from images

    def _is_due(self, packet: av.Packet[av.stream.Stream]) -> bool:
        """Whether a picture must come of a packet at once."""
        codec = self.stream.codec_context
        is_prompt = codec.name == "mpeg4" and not codec.has_b_frames
        return is_prompt and packet.size > _MOST_BYTES_WITHOUT_PICTURE

    def tags(self, frame: DecodedFrame) -> color.ColorTags:
        """Read how the samples of a frame are meant.

        Raises:
            VideoError: its color matrix is not supported.
        """
        try:
            return color.tags_of(frame.image, self.stream.codec_context.name)
        except ValueError as error:
            raise VideoError(f"video {self.path}: {error}") from None

    def to_rgb(self, frame: DecodedFrame, size: tuple[int, int] | None = None) -> Image:
        """Convert a frame to (height, width, 3) uint8 RGB, resized to (width, height) if given.

        Raises:
            VideoError: its color matrix is not supported.
        """
        return color.to_rgb(frame.image, self.tags(frame), size)

    def _check_frame(self, image: av.VideoFrame, index: int, size: tuple[int, int]) -> None:
        if image.is_corrupt:
            raise self._damaged(index)
        self._limits.check_frame(f"video {self.path}", image.width, image.height)
        if (image.width, image.height) != size:
            raise VideoError(
                f"video {self.path} changes size at frame {index}, from {size[0]}x{size[1]} to "
                f"{image.width}x{image.height}; convert it to one size"
            )

    def _damaged(self, index: int) -> VideoError:
        return VideoError(f"video {self.path} is damaged at frame {index}; replace the file")


def _open(path: Path, limits: Limits) -> av.container.InputContainer:
    try:
        if path.is_dir():
            raise VideoError(f"video {path} is a folder; give a file")
        if not path.is_file() and path.exists():
            raise VideoError(f"video {path} is not a regular file; save it as one first")
        num_bytes = path.stat().st_size
        if num_bytes == 0:
            raise VideoError(f"video {path} is empty; replace the file")
        limits.check_size(f"video {path}", num_bytes)
        return av.open(
            str(path.absolute()),
            "r",
            container_options=_CONTAINER_OPTIONS,
            metadata_errors="replace",
        )
    except FileNotFoundError:
        raise VideoError(f"video {path} does not exist; check the path") from None
    except av.ArgumentError:
        raise VideoError(
            f"video {path} cannot be opened: it is of no format that holds a video of its own, "
            "but maybe a playlist or picture; give an mp4, mov, mkv, webm or the like"
        ) from None
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"video {path} cannot be opened ({error.strerror}); check that it is a video"
        ) from None


def _main_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    stream = container.streams.best("video")
    if (
        not isinstance(stream, av.VideoStream)
        or stream.disposition & av.stream.Disposition.attached_pic
    ):
        raise VideoError(f"video {path} holds no video stream, only sound; give another file")
    if stream.codec_context is None:
        raise VideoError(f"video {path} has a codec that cannot be decoded; convert it to H.264")
    return stream
