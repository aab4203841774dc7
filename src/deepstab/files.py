"""Files: their hashes, and writing one so that it appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER_VARIABLE = "DEEPSTAB_PARTIAL_OWNER"
"""Environment variable: what stands in the temporary names, so that who kills a process can remove
what it left."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """Let a file take its name only when it is complete.

    On any exception, an interrupt included, what was written is removed and `path` stays as it
    was. Two writers of the same path do not meet: each has a temporary name of its own.

    Args:
        path: the file to appear; its folder must exist.

    Yields:
        A temporary name in the same folder to write to, with the suffix `.part`.
    """
    owner = os.environ.get(OWNER_VARIABLE, "")
    temporary = path.absolute().with_name(f".deepstab-{owner}{uuid.uuid4().hex}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partials(folder: Path, *, owner: str) -> None:
    """Remove from a folder what processes of an owner left there when they were killed."""
    for path in folder.glob(f".deepstab-{owner}*.part"):
        path.unlink(missing_ok=True)
