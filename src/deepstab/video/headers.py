"""What the first bytes of a file declare about the rest of it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO


def declared_size(path: Path) -> int | None:
    """Return the size in bytes that a Matroska or AVI header declares, None when it does not."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"RIFF":
            size: int = struct.unpack("<I", file.read(4))[0]
            return size + 8 if 0 < size < 0xFFFFFFFF else None
        if magic != b"\x1a\x45\xdf\xa3":
            return None
        header_size = _read_ebml_size(file)
        if header_size is None:
            return None
        file.seek(header_size, 1)
        if file.read(4) != b"\x18\x53\x80\x67":  # the Segment, which holds all the rest
            return None
        segment_size = _read_ebml_size(file)
        return None if segment_size is None else file.tell() + segment_size


def _read_ebml_size(file: BinaryIO) -> int | None:
    """Read a length of 1 to 8 bytes, None when it is marked unknown. Source: RFC 8794, 6."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    num_bytes = 9 - first[0].bit_length()
    rest = file.read(num_bytes - 1)
    value = int.from_bytes(first + rest, "big") - (1 << 7 * num_bytes)
    return None if value == (1 << 7 * num_bytes) - 1 else value
