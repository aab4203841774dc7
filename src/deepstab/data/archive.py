"""Zip archives from elsewhere: looked through as a whole before a byte of them is unpacked."""

from __future__ import annotations

import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from deepstab.errors import DataError

MAX_FILES = 100_000
# Videos hardly shrink in an archive. What unpacks to far more than it came as is a bomb.
MAX_GROWTH = 20
_ALWAYS_ALLOWED_BYTES = 2**20
_MAX_NAME_BYTES = 255
_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
# Their decompressors give no more than is asked for at a time; those of bzip2 and LZMA do.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpack_zip(archive: Path, destination: Path) -> None:
    """Unpack a zip archive whose files all belong below the destination.

    Archives within the archive stay files.

    Args:
        archive: the file.
        destination: folder, replaced; whole or absent.

    Raises:
        DataError: it holds what no data set needs: a name that leads elsewhere, is not UTF-8 or
            stands twice, a link, an encrypted file, another compression, or far more bytes or
            files than such an archive has. Nothing is written then.
        zipfile.BadZipFile: it is damaged, or no zip archive.
    """
    with zipfile.ZipFile(archive) as opened:
        problem = next(_problems(opened, archive.stat().st_size), None)
        if problem is not None:
            raise DataError(f"the archive is refused: {problem}")
        shutil.rmtree(destination, ignore_errors=True)
        try:
            opened.extractall(destination)
        except BaseException:
            shutil.rmtree(destination, ignore_errors=True)
            raise


def _problems(opened: zipfile.ZipFile, archive_bytes: int) -> Iterator[str]:
    members = opened.infolist()
    if len(members) > MAX_FILES:
        yield f"{len(members)} files, more than {MAX_FILES}"
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > _ALWAYS_ALLOWED_BYTES + MAX_GROWTH * archive_bytes:
        yield f"{archive_bytes} bytes would become {unpacked_bytes}"
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        name = member.filename.removesuffix("/")
        for problem in _problems_of(member, name):
            yield f"{member.orig_filename!r} {problem}"
        (folders if member.is_dir() else files).add(name)
        folders.update(parent.as_posix() for parent in PurePosixPath(name).parents)
    if len(files) < sum(not member.is_dir() for member in members) or files & folders:
        yield "a name stands twice"


def _problems_of(member: zipfile.ZipInfo, name: str) -> Iterator[str]:
    parts = name.split("/")
    # zipfile cuts names at a zero byte.
    if member.filename != member.orig_filename or any(
        unicodedata.category(char) in ("Cc", "Cs") for char in name
    ):
        yield "holds control characters"
    if not name.isascii() and not member.flag_bits & _UTF8_FLAG:
        yield "is not UTF-8"
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in parts[0]:
        yield "leads out of the folder"
    if max(len(part.encode(errors="replace")) for part in parts) > _MAX_NAME_BYTES:
        yield "is too long"
    # Zero: made on a system without kinds of files.
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield "is a link or a device"
    if member.flag_bits & _ENCRYPTED_FLAG:
        yield "is encrypted"
    if member.compress_type not in _METHODS:
        yield "is compressed in another way than deflate"
