"""Ways in which a file may be damaged, chosen by a seeded chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

Change = Callable[[bytearray, random.Random], str]

# Lengths and counts that arithmetic goes wrong with.
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SIZES = (1, 4, 20, 100, 300, 3000)


def damage_file(path: Path, chance: random.Random, aims: Sequence[bytes]) -> str:
    """Damage a file once or several times; what was done, in words.

    Args:
        path: the file.
        chance: decides all.
        aims: byte strings near which numbers stand that matter.
    """
    if chance.random() < 0.04:
        return _as_a_whole(path, chance)
    content, said = bytearray(path.read_bytes()), []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        aimed = bool(aims) and chance.random() < 0.4
        said.append(
            _aimed(content, chance, aims) if aimed else chance.choice(CHANGES)(content, chance)
        )
    path.write_bytes(content)
    return f"{path.name}: {', '.join(said)}"


def _as_a_whole(path: Path, chance: random.Random) -> str:
    way = chance.choice(["missing", "empty", "a folder", "noise"])
    size = path.stat().st_size
    path.unlink()
    if way == "empty":
        path.touch()
    elif way == "a folder":
        path.mkdir()
    elif way == "noise":
        path.write_bytes(chance.randbytes(size))
    return f"{path.name}: {way}"


def _place(content: bytearray, chance: random.Random) -> int:
    """Anywhere, or near one of the ends, where headers and indexes stand."""
    near = min(len(content), chance.choice([64, 512, 4096]))
    return max(
        0,
        chance.choice(
            [
                chance.randrange(len(content) + 1),
                chance.randrange(near + 1),
                len(content) - chance.randrange(near + 1),
            ]
        ),
    )


def _flip(content: bytearray, chance: random.Random) -> str:
    at = min(_place(content, chance), len(content) - 1)
    if at >= 0:
        content[at] ^= 1 << chance.randrange(8)
    return f"a bit of byte {at} flipped"


def _zeros(content: bytearray, chance: random.Random) -> str:
    return _overwrite(content, chance, "zeros", bytes)


def _noise(content: bytearray, chance: random.Random) -> str:
    return _overwrite(content, chance, "noise", chance.randbytes)


def _repeat(content: bytearray, chance: random.Random) -> str:
    start = _place(content, chance)
    return _overwrite(
        content, chance, f"bytes from {start}", lambda size: bytes(content[start : start + size])
    )


def _overwrite(
    content: bytearray, chance: random.Random, what: str, make: Callable[[int], bytes]
) -> str:
    at = _place(content, chance)
    new = make(min(chance.choice(SIZES), len(content) - at))
    content[at : at + len(new)] = new
    return f"{len(new)} bytes of {what} at {at}"


def _drop(content: bytearray, chance: random.Random) -> str:
    at, size = _place(content, chance), chance.choice(SIZES)
    del content[at : at + size]
    return f"{size} bytes dropped at {at}"


def _insert(content: bytearray, chance: random.Random) -> str:
    at, start, size = _place(content, chance), _place(content, chance), chance.choice(SIZES)
    content[at:at] = content[start : start + size]
    return f"{size} bytes from {start} inserted at {at}"


def _cut(content: bytearray, chance: random.Random) -> str:
    at = _place(content, chance)
    del content[at:]
    return f"cut at {at}"


def _aimed(content: bytearray, chance: random.Random, aims: Sequence[bytes]) -> str:
    """Overwrite a number that stands behind a name."""
    there = [aim for aim in aims if aim in content]
    if not there:
        return _flip(content, chance)
    aim = chance.choice(there)
    places = []
    at = content.find(aim)
    while at >= 0 and len(places) < 1000:
        places.append(at)
        at = content.find(aim, at + 1)
    at = chance.choice(places) + len(aim) + chance.choice([0, 1, 4, 8, 12, 16, 20, 24, 40])
    size = chance.choice([1, 2, 4, 8])
    value = chance.choice([*NUMBERS, chance.getrandbits(32), chance.getrandbits(8)])
    order = chance.choice(["big", "little"])
    content[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)
    return f"{value:#x} in {size} bytes at {at}, behind {aim!r}"


CHANGES: tuple[Change, ...] = (_flip, _flip, _zeros, _noise, _repeat, _drop, _insert, _cut)
