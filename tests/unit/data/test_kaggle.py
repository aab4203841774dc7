"""The Kaggle download against a real HTTP server on loopback that answers as Kaggle does.

kagglehub's LOCALHOST environment talks to http://localhost, and http_proxy brings that to the
server's port: nothing of kagglehub is replaced.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import socket
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from deepstab.data import kaggle, transfer
from deepstab.errors import CredentialsError, DataError, DownloadError
from tests.unit.data.test_archive import DAMAGED, HOSTILE

DATASET = "bishakhamondal/deepstab"
MIB = 2**20  # kagglehub writes whole MiB only
FILES = {
    "deepstab/stable/1.avi": bytes(range(256)) * 8192,
    "deepstab/unstable/1.avi": bytes(reversed(range(256))) * 8192,
    "deepstab/README.md": b"61 pairs",
}


@dataclass
class FakeKaggle:
    """What the server answers, and what it was asked."""

    archive: bytes = b""
    status: int = 302
    cut_at: list[int] = field(default_factory=list)  # where each attempt hangs up, bytes
    stall: bool = False  # fall silent instead of hanging up
    sends_md5: bool = True
    md5_of: bytes | None = None  # announce the checksum of something else
    requests: list[dict[str, Any]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)


def make_handler(state: FakeKaggle) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = urlsplit(self.path).path
            state.requests.append(
                {"path": path, "body": body, "auth": self.headers["Authorization"]}
            )
            if state.status == 302:
                self.send_response(302)
                self.send_header("Location", "http://localhost/storage/archive.zip?signature=1")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            answer = json.dumps({"code": state.status, "message": "refused"}).encode()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            state.ranges.append(wanted)
            md5 = hashlib.md5(state.md5_of or state.archive).digest()
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(state.archive) - start))
            if state.sends_md5:
                digest = base64.b64encode(md5).decode()
                self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={digest}")
            self.end_headers()
            attempt = len(state.requests) - 1
            end = state.cut_at[attempt] if attempt < len(state.cut_at) else len(state.archive)
            try:
                self.wfile.write(state.archive[start:end])
                self.wfile.flush()
                if state.stall:
                    time.sleep(1)
            except OSError:
                self.close_connection = True  # the client had seen enough

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def make_archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home" / ".kaggle"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    state = FakeKaggle(archive=make_archive(FILES))
    http = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(state))
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{http.server_port}")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "project" / "raw"


def download(destination: Path) -> None:
    kaggle.download_dataset(destination, dataset=DATASET, version=1)


def refusal(destination: Path, error: type[DataError]) -> str:
    """The message of the download's error; nothing may be left where the data belongs."""
    with pytest.raises(error) as caught:
        download(destination)
    assert not destination.parent.exists() or not list(destination.parent.iterdir())
    message = str(caught.value)
    assert "\n" not in message
    assert "data.source" in message  # every message names the way out
    return message


def files_in(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_pinned_version_is_unpacked(server: FakeKaggle, destination: Path) -> None:
    download(destination)
    assert files_in(destination) == FILES
    assert list(destination.parent.iterdir()) == [destination]
    (request,) = server.requests
    assert request["path"] == "/api/v1/datasets.DatasetApiService/DownloadDataset"
    assert request["body"]["ownerSlug"] == "bishakhamondal"
    assert request["body"]["datasetSlug"] == "deepstab"
    assert request["body"]["datasetVersionNumber"] == 1
    assert request["auth"] == "Bearer secret"


def test_a_second_download_comes_from_the_cache(server: FakeKaggle, destination: Path) -> None:
    download(destination)
    download(destination.with_name("again"))
    assert files_in(destination.with_name("again")) == FILES
    assert len(server.requests) == 1


def test_an_existing_destination_is_kept(server: FakeKaggle, destination: Path) -> None:
    destination.mkdir(parents=True)
    with pytest.raises(DataError, match="exists already; remove it"):
        download(destination)
    assert not server.requests


@pytest.mark.usefixtures("server")
def test_a_place_that_cannot_be_written(destination: Path) -> None:
    destination.parent.write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written"):
        download(destination)


@pytest.mark.parametrize("sends_md5", [True, False])
def test_a_broken_transfer_is_resumed(
    server: FakeKaggle, destination: Path, *, sends_md5: bool
) -> None:
    server.sends_md5 = sends_md5
    server.cut_at = [MIB + 1000, 3 * MIB + 1000]
    download(destination)
    assert files_in(destination) == FILES
    assert [r for r in server.ranges if r] == [f"bytes={MIB}-", f"bytes={3 * MIB}-"]


def test_a_silent_transfer_is_resumed(
    server: FakeKaggle, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TIME_LIMITS_S", (1.0, 0.3))
    server.cut_at = [MIB + 1000]
    server.stall = True
    download(destination)
    assert files_in(destination) == FILES
    assert f"bytes={MIB}-" in server.ranges


def test_a_transfer_left_by_an_earlier_call_is_resumed(
    server: FakeKaggle, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAUSES_S", ())
    server.cut_at = [2 * MIB]
    refusal(destination, DownloadError)
    download(destination)
    assert files_in(destination) == FILES
    assert f"bytes={2 * MIB}-" in server.ranges


@pytest.mark.parametrize("offset", [1000, MIB + 1000])
def test_a_transfer_that_always_breaks_is_an_error(
    server: FakeKaggle, destination: Path, offset: int
) -> None:
    server.cut_at = [offset] * 9
    message = refusal(destination, DownloadError)
    assert f"{DATASET} version 1 cannot be fetched" in message
    assert len(server.requests) == 4


def test_a_wrong_checksum_is_an_error(server: FakeKaggle, destination: Path) -> None:
    server.md5_of = b"something else"
    assert "arrived damaged" in refusal(destination, DownloadError)
    assert len(server.requests) == 4
    server.md5_of = None
    download(destination)
    assert files_in(destination) == FILES


@pytest.mark.parametrize("damage", ["flipped", "truncated", "html"])
def test_a_damaged_archive_is_fetched_anew(
    server: FakeKaggle, destination: Path, damage: str
) -> None:
    server.sends_md5 = False  # so that unpacking has to notice
    whole = server.archive
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    server.archive = {
        "flipped": bytes(flipped),
        "truncated": whole[:-100],
        "html": b"<html>log in to this network</html>",
    }[damage]
    assert "arrived damaged" in refusal(destination, DownloadError)
    assert len(server.requests) == 4
    server.archive = whole
    download(destination)
    assert files_in(destination) == FILES


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    server: FakeKaggle, destination: Path, tmp_path: Path, kind: str
) -> None:
    make, expected = HOSTILE[kind]
    server.archive = make(tmp_path)
    assert re.search(expected, refusal(destination, DownloadError))
    assert len(server.requests) == (4 if expected == DAMAGED else 1)
    # Neither in the project nor in kagglehub's cache nor beside them.
    assert files_in(tmp_path) == {}
    server.archive = make_archive(FILES)
    download(destination)
    assert files_in(destination) == FILES


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials(server: FakeKaggle, destination: Path, status: int) -> None:
    server.status = status
    message = refusal(destination, CredentialsError)
    assert f"HTTP {status}" in message
    assert "accept the data set's rules" in message
    assert len(server.requests) == 1


def test_an_unknown_version(server: FakeKaggle, destination: Path) -> None:
    server.status = 404
    assert f"Kaggle has no {DATASET} version 1 (HTTP 404)" in refusal(destination, DownloadError)
    assert len(server.requests) == 1


def test_a_server_error(server: FakeKaggle, destination: Path) -> None:
    server.status = 503
    assert "cannot be fetched" in refusal(destination, DownloadError)


@pytest.mark.usefixtures("token")
def test_nobody_listens(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    start_s = time.monotonic()
    assert "Connection refused" in refusal(destination, DownloadError)
    assert time.monotonic() - start_s < 5


@pytest.mark.usefixtures("token")
def test_nobody_answers(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIME_LIMITS_S", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never says a word
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{mute.getsockname()[1]}")
        start_s = time.monotonic()
        assert "timed out" in refusal(destination, DownloadError)
    assert time.monotonic() - start_s < 5


def test_no_credentials(destination: Path) -> None:
    assert not kaggle.credentials_found()
    message = refusal(destination, CredentialsError)
    for remedy in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "~/.kaggle/kaggle.json"):
        assert remedy in message


def test_credentials_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    assert not kaggle.credentials_found()
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert kaggle.credentials_found()


@pytest.mark.parametrize(
    ("name", "content"),
    [("kaggle.json", '{"username": "someone", "key": "secret"}'), ("access_token", "secret")],
)
def test_credentials_in_a_file(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "home" / ".kaggle" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert kaggle.credentials_found()


@pytest.mark.parametrize("content", ["{", "{}", '{"username": "someone"}', "1"])
def test_an_unreadable_credentials_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "home" / ".kaggle" / "kaggle.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(CredentialsError, match="cannot be read"):
        kaggle.credentials_found()
