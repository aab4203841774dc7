"""Whether the elements of a Matroska or WebM file follow one another without a gap, as they were.

libav looks for the next cluster where it loses its place, and goes on from there: the frames
between are missing, and only its log says so. Nor does it look at checksums, which most writers of
Matroska put into each cluster, those of WebM into none.

Source: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_INFORMATION, _TRACKS = 0x1549A966, 0x1654AE6B
# Of what decides pictures and times.
_CHECKED = frozenset({_INFORMATION, _TRACKS, _CLUSTER})
# The name and size of a checksum, the first in the element that it is of.
_CHECKSUM = b"\xbf\x84"
# Void and checksum may lie anywhere.
_ANYWHERE = frozenset({0xEC, 0xBF})
_IN = {
    # Beside the three, seek head, cues, chapters, attachments, tags.
    _SEGMENT: _ANYWHERE
    | {_INFORMATION, _TRACKS, _CLUSTER}
    | {0x114D9B74, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367},
    # Time, silent tracks, position, size before, blocks of four kinds.
    _CLUSTER: _ANYWHERE | {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xA2},
}
_TRACK_ENTRY, _TRACK_NUMBER = 0xAE, 0xD7
_SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xA3, 0xA0, 0xA1
_MOST_HEADER_BYTES = 12


class _DamageError(Exception):
    """Something else than an element stands at a byte, or one that is not as it was."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def find_damage(path: Path) -> int | None:
    """The byte of the first element that is none, or not as it was; None where all is sound.

    Where there are no checksums, a few bytes of each block are read. Where a file ends early is no
    damage.

    Args:
        path: a Matroska or WebM file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            names = _ANYWHERE | {_EBML, _SEGMENT}
            _follow(data, 0, len(data), names, is_open=True, tracks=set())
        except _DamageError as damage:
            return damage.at
    return None


def _follow(
    data: mmap.mmap,
    at: int,
    end: int,
    names: frozenset[int],
    *,
    is_open: bool,
    tracks: set[int],
) -> int:
    """Go from element to element, and say where they end.

    Args:
        data: the file.
        at: where the first begins.
        end: where the element that holds them ends.
        names: what may lie in it.
        is_open: its length is not known: what may not lie in it ends it.
        tracks: numbers of the file's tracks, added where they are told; blocks are of these.

    Raises:
        _DamageError: something else lies in it.
    """
    while at + _MOST_HEADER_BYTES <= end:
        name, body, size = _header(data, at)
        children = _IN.get(name) if name in names else None
        if name not in names and (is_open or not _is_skipped(data, body, size, end, names)):
            if is_open:
                return at
            raise _DamageError(at)
        stop = end if size is None else body + size
        if children is not None:
            inner_end = min(stop, end)
            stop = _follow(data, body, inner_end, children, is_open=size is None, tracks=tracks)
            if size is not None:
                stop = body + size
        elif size is None:
            raise _DamageError(at)
        if stop > end:
            if end < len(data):
                raise _DamageError(at)
            return end
        if size is not None and name in _CHECKED and not _is_as_it_was(data, body, stop):
            raise _DamageError(at)
        if name == _TRACKS:
            tracks |= _track_numbers(data, body, stop)
        if not _is_of_a_track(data, name, body, stop, tracks):
            raise _DamageError(at)
        at = stop
    return end


def _is_as_it_was(data: mmap.mmap, body: int, stop: int) -> bool:
    """Whether the content of an element has the checksum it begins with, or has none."""
    start = body + len(_CHECKSUM) + 4
    if data[body : body + len(_CHECKSUM)] != _CHECKSUM or start > stop:
        return True
    with memoryview(data) as view, view[start:stop] as content:
        return zlib.crc32(content) == int.from_bytes(data[start - 4 : start], "little")


def _track_numbers(data: mmap.mmap, body: int, stop: int) -> set[int]:
    """The numbers of the tracks that an element of tracks tells of."""
    return {
        int.from_bytes(data[start:end], "big")
        for name, entry, entry_end in _children(data, body, stop)
        if name == _TRACK_ENTRY
        for inner, start, end in _children(data, entry, entry_end)
        if inner == _TRACK_NUMBER
    }


def _is_of_a_track(data: mmap.mmap, name: int, body: int, stop: int, tracks: set[int]) -> bool:
    """Whether a block begins with the number of a track; libav passes over one that does not."""
    if name == _BLOCK_GROUP:
        blocks = [start for inner, start, _ in _children(data, body, stop) if inner == _BLOCK]
    else:
        blocks = [body] if name == _SIMPLE_BLOCK else []
    return all(_number(data, start) in tracks for start in blocks if tracks)


def _number(data: mmap.mmap, at: int) -> int:
    """A number that says with its first bits how many bytes it has."""
    num_bytes = 9 - data[at].bit_length()
    return int.from_bytes(data[at : at + num_bytes], "big") & ((1 << 7 * num_bytes) - 1)


def _children(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The elements between two bytes: name, first byte of the content, first byte after it."""
    # Past the end of the file stand no bytes of a header.
    while at + 2 <= end and at + _MOST_HEADER_BYTES <= len(data):
        name, body, size = _header(data, at)
        if size is None:
            return
        yield name, body, body + size
        at = body + size


def _is_skipped(
    data: mmap.mmap, body: int, size: int | None, end: int, names: frozenset[int]
) -> bool:
    """Whether an element of a later standard lies here: one that is known follows it."""
    if size is None or body + size > end:
        return False
    stop = body + size
    return stop == end or (stop + _MOST_HEADER_BYTES <= end and _header(data, stop)[0] in names)


def _header(data: mmap.mmap, at: int) -> tuple[int, int, int | None]:
    """The name of an element, where its content begins, and its size, None if not known.

    Raises:
        _DamageError: no element begins so.
    """
    head = data[at : at + _MOST_HEADER_BYTES]
    name_bytes = 9 - head[0].bit_length()
    if name_bytes > 4 or not head[name_bytes]:
        raise _DamageError(at)
    size_bytes = 9 - head[name_bytes].bit_length()
    body = name_bytes + size_bytes
    unknown = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(head[name_bytes:body], "big") & unknown
    return int.from_bytes(head[:name_bytes], "big"), at + body, None if size == unknown else size
