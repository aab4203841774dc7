"""Archives as an attacker makes them, every one a real file; `test_kaggle` downloads them too."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deepstab.data import archive
from deepstab.errors import DataError

ESCAPED = b"escaped"
DAMAGED = "arrived damaged"
DAMAGE = (zipfile.BadZipFile, UnicodeDecodeError)


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that stands twice
        made.writestr("stable/1.avi", b"good")
        for name, content in members:
            made.writestr(name, content, method)
    return buffer.getvalue()


def named(name: str) -> Callable[[Path], bytes]:
    return lambda _: zipped((name, ESCAPED))


def of_kind(kind: int, content: bytes) -> Callable[[Path], bytes]:
    member = zipfile.ZipInfo("stable/2.avi")
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    return lambda _: zipped((member, content))


def patched(old: bytes, new: bytes, *members: tuple[str, bytes]) -> Callable[[Path], bytes]:
    """An archive no zip tool writes: bytes of the headers replaced."""

    def make(_: Path) -> bytes:
        content = zipped(*members)
        assert old in content
        return content.replace(old, new)

    return make


def encrypted(_: Path) -> bytes:
    content = bytearray(zipped(("stable/2.avi", ESCAPED)))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.rindex(signature) + offset] |= 1
    return bytes(content)


def lying_about_its_size(_: Path) -> bytes:
    """4 GiB less one byte, by its headers."""
    content = bytearray(zipped(("stable/2.avi", ESCAPED)))
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = content.rindex(signature) + offset
        content[at : at + 4] = b"\xfe\xff\xff\xff"
    return bytes(content)


def larger_than_it_says(_: Path) -> bytes:
    """10 MB of zeros that are said to be 100 bytes."""
    content = bytearray(zipped(("stable/2.avi", bytes(10**7)), method=zipfile.ZIP_DEFLATED))
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = content.rindex(signature) + offset
        content[at : at + 4] = (100).to_bytes(4, "little")
    return bytes(content)


def with_a_tar_in_front(folder: Path) -> bytes:
    """Both a tar and a zip archive; kagglehub tries tar first."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("stable")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder)
        tar.addfile(link)
        member = tarfile.TarInfo("stable/1.avi")
        member.size = len(ESCAPED)
        tar.addfile(member, io.BytesIO(ESCAPED))
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "parent": (named("../../escaped"), "leads out of the folder"),
    "parent within": (named("stable/../../../escaped"), "leads out of the folder"),
    "parent folder": (named("../escaped/"), "leads out of the folder"),
    "absolute": (lambda folder: zipped((f"{folder}/escaped", ESCAPED)), "leads out of the folder"),
    "backslash": (named("..\\escaped"), "leads out of the folder"),
    "drive": (named("C:/escaped"), "leads out of the folder"),
    "nameless": (named("stable//2.avi"), "leads out of the folder"),
    "symlink": (of_kind(stat.S_IFLNK, b"/etc/passwd"), "is a link or a device"),
    "device": (of_kind(stat.S_IFCHR, b""), "is a link or a device"),
    "pipe": (of_kind(stat.S_IFIFO, b""), "is a link or a device"),
    "twice": (named("stable/1.avi"), "stands twice"),
    "file and folder": (named("stable/1.avi/2.avi"), "stands twice"),
    "file as its own folder": (named("stable"), "stands twice"),
    "zero byte": (patched(b"X.avi", b"\0.avi", ("X.avi", b"")), "control characters"),
    "newline": (named("stable/\n.avi"), "control characters"),
    "not UTF-8": (patched(b"XX.avi", b"\xff\xfe.avi", ("XX.avi", b"")), "is not UTF-8"),
    "said to be UTF-8": (
        patched("éé".encode(), b"\xff\xfe\xff\xfe", ("éé.avi", b"")),
        DAMAGED,
    ),
    "long": (named(f"stable/{'x' * 300}.avi"), "is too long"),
    "encrypted": (encrypted, "is encrypted"),
    "bzip2": (lambda _: zipped(("2.avi", bytes(9)), method=zipfile.ZIP_BZIP2), "deflate"),
    "lzma": (lambda _: zipped(("2.avi", bytes(9)), method=zipfile.ZIP_LZMA), "deflate"),
    "bomb": (
        lambda _: zipped(("2.avi", bytes(5 * 10**7)), method=zipfile.ZIP_DEFLATED),
        r"\d{5} bytes would become 50000004",
    ),
    "bomb by its claim": (lying_about_its_size, "bytes would become 4294967298"),
    "more than it says": (larger_than_it_says, DAMAGED),
    "tar": (with_a_tar_in_front, DAMAGED),
    "tar and zip": (lambda f: with_a_tar_in_front(f) + named("../x")(f), "leads out of the folder"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    make, expected = HOSTILE[kind]
    path = tmp_path / "a.zip"
    path.write_bytes(make(tmp_path))
    with pytest.raises((DataError, *DAMAGE)) as caught:
        archive.unpack_zip(path, tmp_path / "project" / "out")
    message = str(caught.value)
    assert "\n" not in message
    if expected == DAMAGED:
        assert isinstance(caught.value, DAMAGE)
    else:
        assert re.search(expected, message)
    assert [found for found in tmp_path.rglob("*") if not found.is_dir()] == [path]
    assert not (tmp_path / "project" / "out").exists()


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 50)
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(*((f"stable/x{i}.avi", b"") for i in range(50))))
    with pytest.raises(DataError, match="51 files, more than 50"):
        archive.unpack_zip(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_within_stays_a_file_and_what_was_there_goes(tmp_path: Path) -> None:
    inner = named("../../escaped")(tmp_path)
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(("inner.zip", inner), ("unstable/", b""), ("unstable/é.avi", b"e")))
    out = tmp_path / "out"
    out.mkdir()
    (out / "left").write_text("by a call that was killed")
    archive.unpack_zip(path, out)
    assert (out / "inner.zip").read_bytes() == inner
    assert sorted(found.name for found in out.rglob("*") if found.is_file()) == [
        "1.avi",
        "inner.zip",
        "é.avi",
    ]


def test_a_disk_that_fills_up_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(("unstable/1.avi", b"good")))

    def extract(self: zipfile.ZipFile, folder: Path) -> None:
        self.extract("stable/1.avi", folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", extract)
    with pytest.raises(OSError, match="No space"):
        archive.unpack_zip(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
