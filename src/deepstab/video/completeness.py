"""Whether all the frames of a file came out of it.

libav passes over damage, and over what an index does not name, without a word.
"""

from __future__ import annotations

from array import array
from collections import deque
from pathlib import Path

import av

from deepstab.errors import VideoError
from deepstab.video.headers import declared_size
from deepstab.video.matroska import find_damage
from deepstab.video.mp4 import count_missing, has_stray_times

MICROSECONDS = 1_000_000
# A demuxer that lost its place ends early without an error; headers round less than this.
_DURATION_TOLERANCE_S = 1.0
# Formats whose header holds a duration that is not guessed from what could be read.
_DECLARES_DURATION = frozenset({"matroska,webm", "flv"})
# AVI writers disagree about counting padding.
_SIZE_TOLERANCE = 8
_REMEDY = "replace the file"


class Progress:
    """What the packets and frames of a file told, as far as it was read."""

    def __init__(self, *, num_indexed: int) -> None:
        """Begin before the first packet; while packets are read, libav adds to an index."""
        self.num_indexed = num_indexed
        self.num_frames = 0
        self.last_pts = 0
        self.num_video_packets = 0
        self.last_video_pts = -(2**63)
        self.last_dts = -1
        self.end_s = 0.0
        self.is_damaged = False
        self.dts, self.pts = array("q"), array("q")
        self.expected: set[int] = set()
        self.num_left_out = 0
        self.goes_back = False
        self._last_shown: int | None = None
        self._first_key_pts: int | None = None
        self._dts: deque[int] = deque()

    def note(self, packet: av.Packet[av.stream.Stream]) -> None:
        """Note a packet of any stream."""
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            end_s = (time + (packet.duration or 0)) * float(packet.time_base)
            self.end_s = max(self.end_s, end_s)

    def note_video(self, packet: av.Packet[av.stream.Stream], *, keep_dts: bool) -> None:
        """Note a packet of the video."""
        self.num_video_packets += 1
        self.num_left_out += packet.is_discard
        if packet.pts is not None and not packet.is_discard:
            self.last_video_pts = max(self.last_video_pts, packet.pts)
        if packet.dts is not None:
            self.last_dts = packet.dts
        if packet.pts is not None and packet.dts is not None:
            self.dts.append(packet.dts)
            self.pts.append(packet.pts)
        if keep_dts and packet.dts is not None:
            self._dts.append(packet.dts)

    def expect(self, packet: av.Packet[av.stream.Stream]) -> None:
        """Expect a frame of a packet, unless it needs one that was before the first of the file."""
        if packet.pts is None or packet.is_discard:
            return
        if self._first_key_pts is None and packet.is_keyframe:
            self._first_key_pts = packet.pts
        if self._first_key_pts is not None and packet.pts >= self._first_key_pts:
            self.expected.add(packet.pts)

    def show(self, image: av.VideoFrame) -> None:
        """Note that the frame of a packet is there, in the order of frames."""
        if image.pts is not None:
            self.expected.discard(image.pts)
            self.goes_back |= self._last_shown is not None and image.pts < self._last_shown
            self._last_shown = image.pts

    def next_dts(self) -> int | None:
        """Take the next of the decoding times that were kept."""
        return self._dts.popleft() if self._dts else None


def check_complete(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    seen: Progress,
    *,
    frame_step: int,
) -> None:
    """Compare what was read of a file with what it declares.

    Args:
        path: the file.
        container: the same, open.
        stream: its video, read to the end.
        seen: what came of it.
        frame_step: from one frame to the next, in units of the stream's time base.

    Raises:
        VideoError: frames are missing, at the end or between.
    """
    where = f"video {path} is cut short after frame {seen.num_frames - 1}"
    size = path.stat().st_size
    whole_size = declared_size(path)
    if whole_size is not None and whole_size > size + _SIZE_TOLERANCE:
        raise VideoError(f"{where}: it has {size} of {whole_size} bytes; {_REMEDY}")
    _check_index(path, stream, seen)
    num_indexed = len(stream.index_entries)
    if num_indexed > seen.num_video_packets:
        raise VideoError(
            f"{where}: {seen.num_video_packets} of {num_indexed} frames are there; {_REMEDY}"
        )
    if container.format.name in _DECLARES_DURATION and container.duration:
        duration_s = container.duration / MICROSECONDS
        if duration_s > seen.end_s + _DURATION_TOLERANCE_S:
            raise VideoError(
                f"{where}: {seen.end_s:.2f} of {duration_s:.2f} s are there; {_REMEDY}"
            )
    if seen.expected:
        first_s = float(min(seen.expected) * (stream.time_base or 0))
        raise VideoError(
            f"video {path} is damaged: {len(seen.expected)} frames cannot be decoded, "
            f"the first at {first_s:.3f} s; {_REMEDY}"
        )
    missing = seen.last_video_pts - seen.last_pts
    if container.format.name != "avi" and missing > 0.75 * frame_step:
        raise VideoError(f"{where}: the frames after it cannot be decoded; {_REMEDY}")


def _check_index(path: Path, stream: av.VideoStream, seen: Progress) -> None:
    """Look for what libav passes over.

    Raises:
        VideoError: frames are missing between others.
    """
    where = f"video {path} is damaged"
    name = stream.container.format.name
    if name == "matroska,webm":
        at = find_damage(path)
        if at is not None:
            raise VideoError(f"{where} at byte {at} of {path.stat().st_size}; {_REMEDY}")
    if name == "avi" and seen.num_indexed < seen.num_video_packets:
        # Where its index is sound, frames that a recorder left out may be at the end too.
        missing = stream.frames - (seen.last_dts + 1)
        if missing > 0:
            raise VideoError(f"{where}: {missing} of its frames are not found; {_REMEDY}")
    if name.startswith("mov,"):
        if stream.frames and stream.duration is None:
            raise VideoError(f"{where}: its header does not say how long it is; {_REMEDY}")
        missing = count_missing(path, stream.index)
        if missing:
            raise VideoError(f"{where}: {missing} frames are not in its index; {_REMEDY}")
        # An edit list leaves out the frames before a time, which must be theirs.
        is_out_of_order = seen.num_left_out > 0 and seen.goes_back
        if is_out_of_order or has_stray_times(seen.dts, seen.pts):
            raise VideoError(f"{where}: the times of its frames do not fit; {_REMEDY}")
