"""What a rewritten video keeps untouched: sound, subtitles, cover art, fonts, tags, chapters."""

from __future__ import annotations

import io
import logging
import math
from collections import deque
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.stream import Discard, Disposition

from deepstab.video.reader import DecodedFrame, VideoReader
from deepstab.video.writer import FORMATS, format_for

logger = logging.getLogger(__name__)

# libav's AVFMT_TS_DISCONT, set for MPEG transport and program streams.
_TIMES_START_ANYWHERE = 0x0200
# Tags that describe the old file rather than what is in it.
_CONTAINER_TAGS_LEFT = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
_STREAM_TAGS_LEFT = frozenset({"encoder", "vendor_id", "duration", "bps", "rotate"})
_STREAM_TAG_PREFIXES_LEFT = ("number_of_", "_statistics", "bps-", "duration-")


class Passthrough:
    """The streams beside the main video, carried as packets from one container to another.

    Packets are held until the new video has reached their time, because the frames they belong
    to may still be looked ahead at: the file stays interleaved and memory bounded.
    """

    def __init__(self, reader: VideoReader) -> None:
        """Prepare to hold the packets of every stream but the main video of `reader`."""
        self._reader = reader
        self._held: dict[int, deque[av.Packet[av.stream.Stream]]] = {
            stream.index: deque()
            for stream in reader.container.streams
            if stream.index != reader.stream.index
        }
        self._outputs: dict[int, av.stream.Stream] = {}
        self._next_dts: dict[int, int] = {}
        self._damaged: set[int] = set()
        self._keeps_negative_times = False
        # Broadcast formats count from an arbitrary time; players expect a file to start at zero.
        starts_anywhere = reader.container.format.flags & _TIMES_START_ANYWHERE
        start_us = reader.container.start_time if starts_anywhere else 0
        self.start_s = Fraction(start_us or 0, av.time_base)

    def hold(self, packet: av.Packet[av.stream.Stream]) -> None:
        """Keep a packet for later; one of a stream that is not copied is dropped."""
        queue = self._held.get(packet.stream_index)
        if queue is None:
            return
        if packet.is_corrupt and packet.stream_index not in self._damaged:
            self._damaged.add(packet.stream_index)
            logger.warning(
                "%s: stream %d (%s) is damaged and copied as it is",
                self._reader.path,
                packet.stream_index,
                packet.stream.type,
            )
        queue.append(packet)

    def keep_display(self, first: DecodedFrame, stream: av.VideoStream, path: Path) -> None:
        """Let a player show the new video stream as it shows the old one.

        Args:
            first: frame of the old stream, which holds its rotation.
            stream: of the output, before its header is written.
            path: the output's name; a format that cannot mirror is named in a warning in the log.
        """
        source = self._reader.stream
        if source.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = source.sample_aspect_ratio
        matrix = first.image.side_data.get("DISPLAYMATRIX")
        if isinstance(matrix, SideData):
            display = np.frombuffer(bytes(matrix), np.int32).astype(float)
            stream.set_display_matrix([int(value) for value in display])
            is_mirrored = display[0] * display[4] < display[1] * display[3]
            if is_mirrored and format_for(path) == "matroska":
                logger.warning(
                    "%s: Matroska cannot mirror a picture as %s does", path, self._reader.path
                )
        stream.metadata.update(_kept_tags(source))
        stream.disposition = source.disposition

    def add_streams(self, container: av.container.OutputContainer, path: Path) -> None:
        """Add a stream to `container` for each one it can carry, and copy tags and chapters.

        A stream that the format cannot carry is named in a warning in the log.

        Args:
            container: the output, before its header is written.
            path: its name, for the warning.
        """
        source = self._reader.container
        # An edit list in mp4 hides the samples an audio encoder needs to get going. Matroska has
        # none and would move the whole file instead.
        self._keeps_negative_times = container.format.name in ("mp4", "mov")
        container.metadata.update(
            {k: v for k, v in source.metadata.items() if k.lower() not in _CONTAINER_TAGS_LEFT}
        )
        chapters = source.chapters()
        if chapters:
            container.set_chapters(chapters)
        for stream in source.streams:
            if stream.index not in self._held or _is_written_anew(stream):
                self._held.pop(stream.index, None)
            elif _can_carry(container.format.name, stream):
                self._outputs[stream.index] = _add_copy(container, stream)
            else:
                del self._held[stream.index]
                keeper = next((s for s, name in FORMATS.items() if _can_carry(name, stream)), None)
                logger.warning(
                    "%s: stream %d of %s (%s, %s) is left out, as %s cannot carry it%s",
                    path,
                    stream.index,
                    self._reader.path,
                    stream.type,
                    stream.name or "unknown codec",
                    path.suffix,
                    f"; write {keeper} to keep it" if keeper else "",
                )

    def release(self, container: av.container.OutputContainer, until_s: float = math.inf) -> None:
        """Write the packets whose time is at most `until_s`, all of them by default."""
        for index, queue in self._held.items():
            output = self._outputs[index]
            while queue:
                time_base = queue[0].time_base
                time = queue[0].dts if queue[0].dts is not None else queue[0].pts
                if time is not None and float(time * time_base - self.start_s) > until_s:
                    break
                packet = self._retimed(queue.popleft())
                if packet is not None:
                    packet.stream = output
                    container.mux_one(packet)

    def _retimed(self, packet: av.Packet[av.stream.Stream]) -> av.Packet[av.stream.Stream] | None:
        """Shift a packet to the new start; None when it would play before it."""
        index = packet.stream_index
        shift = round(self.start_s / packet.time_base)
        lowest = self._next_dts.get(index)
        dts = packet.pts if packet.dts is None else packet.dts
        dts = (lowest or 0) if dts is None else dts - shift
        pts = dts if packet.pts is None else packet.pts - shift
        duration = packet.duration or 0
        if not self._keeps_negative_times and pts < 0 and pts + duration <= 0:
            return None
        # Muxers refuse what some recorders write: decoding times that repeat or go back.
        packet.dts = dts if lowest is None else max(dts, lowest)
        packet.pts = max(pts, packet.dts)
        self._next_dts[index] = packet.dts + 1
        return packet


def _kept_tags(stream: av.stream.Stream) -> dict[str, str]:
    """Return the tags of a stream that still hold for a copy of it."""
    return {
        key: value
        for key, value in stream.metadata.items()
        if key.lower() not in _STREAM_TAGS_LEFT
        and not key.lower().startswith(_STREAM_TAG_PREFIXES_LEFT)
    }


def _is_written_anew(stream: av.stream.Stream) -> bool:
    """Say whether the muxer makes this stream itself, from chapters or the time code tag."""
    if stream.type != "data":
        return False
    return "timecode" in stream.metadata or stream.discard == Discard.all


def _can_carry(format_name: str, stream: av.stream.Stream) -> bool:
    """Try a header with this one stream: the muxer itself is the only complete list."""
    # Telemetry such as a camera's gyroscope describes the motion that is being taken out.
    if stream.type == "data":
        return False
    try:
        with av.open(io.BytesIO(), "w", format=format_name) as scratch:
            _add_copy(scratch, stream)
            scratch.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _add_copy(
    container: av.container.OutputContainer, stream: av.stream.Stream
) -> av.stream.Stream:
    copy = container.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(_kept_tags(stream))
    copy.disposition = Disposition(stream.disposition)
    return copy
