from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from deepstab.data import material
from deepstab.data.material import Item, fetch_material, read_list
from deepstab.errors import DataError, DownloadError
from tests.unit.data.test_transfer import FileServer, server

__all__ = ["server"]


def item(file: str, content: bytes, **more: str) -> Item:
    return Item(
        kind="photos" if file.endswith(".jpg") else "video",
        file=file,
        url="http://127.0.0.1:9/unreachable",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        license="CC0-1.0",
        credit="someone (https://example.org)",
        **more,
    )


@pytest.fixture
def photo() -> bytes:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (75, 100, 3), dtype=np.uint8)
    large = cv2.resize(noise, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", large)[1].tobytes()


def test_the_list_names_everything_by_commit_hash_license_and_credit() -> None:
    items = read_list()
    assert sum(item.kind == "video" for item in items) == 31
    assert sum(item.kind == "photos" for item in items) == 56
    assert len({(item.kind, item.file) for item in items}) == len(items)
    for entry in items:
        host, owner, name, commit, *path = entry.url.removeprefix("https://").split("/")
        assert host == "raw.githubusercontent.com"
        assert len(commit) == 40
        assert int(commit, 16)
        assert path
        assert unquote(entry.url) == entry.url or " " not in entry.url
        assert entry.license
        assert f"https://github.com/{owner}/{name}" in entry.credit
        assert (entry.mirror_sha256 is None) == (entry.kind == "video")


def test_videos_come_from_the_web_and_are_not_fetched_again(
    server: FileServer, tmp_path: Path
) -> None:
    video = dataclasses.replace(item("a.mp4", server.content), url=f"{server.url}/x/a%20b.mp4")
    other_kind = item("a.jpg", b"never asked for")
    for _ in range(2):
        folder = fetch_material(tmp_path, kind="video", items=(video, other_kind))
    assert folder == tmp_path / "video"
    assert [path.name for path in folder.iterdir()] == ["a.mp4"]
    assert (folder / "a.mp4").read_bytes() == server.content
    assert server.paths == ["/x/a%20b.mp4"]


def test_photos_from_the_web_are_scaled(server: FileServer, tmp_path: Path, photo: bytes) -> None:
    server.content = photo
    large = dataclasses.replace(item("a.jpg", photo), url=f"{server.url}/a.jpg")
    folder = fetch_material(tmp_path, kind="photos", items=(large,))
    assert [path.name for path in folder.iterdir()] == ["a.jpg"]
    scaled = cv2.imread(str(folder / "a.jpg"))
    assert scaled.shape == (1440, 1920, 3)
    expected = cv2.resize(
        cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), (1920, 1440)
    )
    assert np.abs(scaled.astype(float) - expected).mean() < 4


def test_what_is_no_photo_is_one_line(server: FileServer, tmp_path: Path) -> None:
    broken = dataclasses.replace(item("a.jpg", server.content), url=f"{server.url}/a.jpg")
    with pytest.raises(DataError, match="not a readable image"):
        fetch_material(tmp_path, kind="photos", items=(broken,))
    assert not (tmp_path / "photos" / "a.jpg").exists()


def test_a_mirror_is_copied_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    for kind in ("video", "photos"):
        (mirror / kind).mkdir(parents=True)
    (mirror / "video" / "a.mp4").write_bytes(b"video")
    (mirror / "photos" / "a.jpg").write_bytes(b"scaled")
    items = (
        item("a.mp4", b"video"),
        item("a.jpg", b"original", mirror_sha256=hashlib.sha256(b"scaled").hexdigest()),
    )
    monkeypatch.setenv(material.MIRROR, str(mirror))
    copied = fetch_material(tmp_path / "to", kind="video", items=items)
    assert (copied / "a.mp4").read_bytes() == b"video"
    copied = fetch_material(tmp_path / "to", kind="photos", items=items)
    assert (copied / "a.jpg").read_bytes() == b"scaled"

    (mirror / "video" / "a.mp4").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="mend the mirror"):
        fetch_material(tmp_path / "again", kind="video", items=items)
    (mirror / "video" / "a.mp4").unlink()
    with pytest.raises(DownloadError, match="correct DEEPSTAB_MATERIAL_MIRROR"):
        fetch_material(tmp_path / "again", kind="video", items=items)
    assert list((tmp_path / "again" / "video").iterdir()) == []


def test_an_unreachable_web_is_one_line(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(material.MIRROR, raising=False)
    with pytest.raises(DownloadError, match=r"unreachable cannot be fetched") as caught:
        fetch_material(tmp_path, kind="video", items=(item("a.mp4", b"video"),))
    assert "\n" not in str(caught.value)
    assert server.asked == []
