"""Decoding one video file as a stream, where damage is an error and never a missing frame."""

from __future__ import annotations

from array import array
from collections import deque
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
from deepstab.video.headers import declared_size
from deepstab.video.limits import UNLIMITED, Limits
from deepstab.video.matroska import find_damage
from deepstab.video.mp4 import count_missing, has_stray_times

# libav's names of the formats that hold a video of their own. Playlists, picture patterns and
# scripts, which libav opens too, whatever their suffix, name other files and network addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,asf,ogg,mpegts,mpeg,mpegvideo,mxf,nut,"
    "ivf,gif,apng,h264,hevc,vvc,obu,m4v,h263,mjpeg,yuv4mpegpipe,dv,rm,wtv"
)
_CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# A demuxer that lost its place ends early without an error; headers round less than this.
_DURATION_TOLERANCE_S = 1.0
# Formats whose header holds a duration that is not guessed from what could be read.
_DECLARES_DURATION = frozenset({"matroska,webm", "flv"})
# AVI writers disagree about counting padding.
_SIZE_TOLERANCE = 8
_MICROSECONDS = 1_000_000


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
        if stream.codec_context.name in {"h264", "mjpeg"}:
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
        return None if declared is None else declared / _MICROSECONDS

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
        progress = _Progress()
        size: tuple[int, int] | None = None
        index = 0
        first_pts: int | None = None
        last_pts: int | None = None
        try:
            for image in self._images(progress, on_packet):
                size = size or (image.width, image.height)
                self._check_frame(image, index, size)
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
            raise VideoError(
                f"video {self.path} holds no frame that can be decoded; replace the file"
            )
        self._check_complete(progress, index, last_pts, frame_step)

    def _images(
        self,
        progress: _Progress,
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
            yield from self.stream.decode(packet)

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

    def _check_complete(
        self, progress: _Progress, num_frames: int, last_pts: int, frame_step: int
    ) -> None:
        """Compare what was read with what the header declares.

        Raises:
            VideoError: frames are missing, at the end or between.
        """
        where = f"video {self.path} is cut short after frame {num_frames - 1}"
        remedy = "replace the file"
        size = self.path.stat().st_size
        whole_size = declared_size(self.path)
        if whole_size is not None and whole_size > size + _SIZE_TOLERANCE:
            raise VideoError(f"{where}: it has {size} of {whole_size} bytes; {remedy}")
        self._check_index(progress, size)
        num_indexed = len(self.stream.index_entries)
        if num_indexed > progress.num_video_packets:
            raise VideoError(
                f"{where}: {progress.num_video_packets} of {num_indexed} frames are there; {remedy}"
            )
        if self.container.format.name in _DECLARES_DURATION and self.container.duration:
            duration_s = self.container.duration / _MICROSECONDS
            if duration_s > progress.end_s + _DURATION_TOLERANCE_S:
                raise VideoError(
                    f"{where}: {progress.end_s:.2f} of {duration_s:.2f} s are there; {remedy}"
                )
        missing = progress.last_video_pts - last_pts
        if not self._times_by_packet and missing > 0.75 * frame_step:
            raise VideoError(f"{where}: the frames after it cannot be decoded; {remedy}")

    def _check_index(self, progress: _Progress, size: int) -> None:
        """Look for what libav passes over.

        Raises:
            VideoError: frames are missing between others.
        """
        remedy = "replace the file"
        where = f"video {self.path} is damaged"
        if self.container.format.name == "matroska,webm":
            at = find_damage(self.path)
            if at is not None:
                raise VideoError(f"{where} at byte {at} of {size}; {remedy}")
        if self.container.format.name.startswith("mov,"):
            missing = count_missing(self.path, self.stream.index)
            if missing:
                raise VideoError(f"{where}: {missing} frames are not in its index; {remedy}")
            if has_stray_times(progress.dts, progress.pts):
                raise VideoError(f"{where}: the times of its frames do not fit; {remedy}")


class _Progress:
    """How far the packets of a file reached."""

    def __init__(self) -> None:
        self.num_video_packets = 0
        self.last_video_pts = -(2**63)
        self.end_s = 0.0
        self.is_damaged = False
        self.dts, self.pts = array("q"), array("q")
        self._dts: deque[int] = deque()

    def note(self, packet: av.Packet[av.stream.Stream]) -> None:
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            end_s = (time + (packet.duration or 0)) * float(packet.time_base)
            self.end_s = max(self.end_s, end_s)

    def note_video(self, packet: av.Packet[av.stream.Stream], *, keep_dts: bool) -> None:
        self.num_video_packets += 1
        if packet.pts is not None and not packet.is_discard:
            self.last_video_pts = max(self.last_video_pts, packet.pts)
        if packet.pts is not None and packet.dts is not None:
            self.dts.append(packet.dts)
            self.pts.append(packet.pts)
        if keep_dts and packet.dts is not None:
            self._dts.append(packet.dts)

    def next_dts(self) -> int | None:
        return self._dts.popleft() if self._dts else None


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
