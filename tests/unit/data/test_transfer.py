"""One file from a real HTTP server on loopback, which breaks off, refuses and lies."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deepstab.data import transfer
from deepstab.errors import DownloadError

CONTENT = bytes(range(256)) * 4096
CHUNK_BYTES = 2**16  # what is written at a time
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class FileServer:
    """What the server answers, and which ranges it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    ranges_known: bool = True
    cut_at: list[int] = field(default_factory=list)  # where each attempt hangs up, bytes
    asked: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def make_handler(state: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            attempt = len(state.asked)
            state.asked.append(wanted)
            state.paths.append(self.path)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(wanted[6:-1]) if wanted and state.ranges_known else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            end = state.cut_at[attempt] if attempt < len(state.cut_at) else None
            self.wfile.write(state.content[start:end])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0))
    state = FileServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def fetch(url: str, folder: Path) -> Path:
    transfer.fetch(f"{url}/clip.mp4", folder / "clip.mp4", sha256=SHA256)
    return folder / "clip.mp4"


def refusal(url: str, folder: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch(url, folder)
    assert not (folder / "clip.mp4").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_arrives_whole(server: FileServer, tmp_path: Path) -> None:
    path = fetch(server.url, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.asked == [None]


def test_a_broken_transfer_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.cut_at = [3 * CHUNK_BYTES, 7 * CHUNK_BYTES]
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=196608-", "bytes=458752-"]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_transfer_that_always_breaks_is_resumed_by_the_next_run(
    server: FileServer, tmp_path: Path
) -> None:
    server.cut_at = [CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
    assert "bytes read" in refusal(server.url, tmp_path)
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=196608-"


def test_a_server_without_ranges_starts_again(server: FileServer, tmp_path: Path) -> None:
    server.cut_at, server.ranges_known = [3 * CHUNK_BYTES], False
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT


def test_a_transfer_that_broke_off_after_the_last_byte(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_another_file_than_expected_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    message = refusal(server.url, tmp_path)
    assert f"instead of {SHA256}" in message
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert fetch(server.url, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_is_said_at_once(server: FileServer, tmp_path: Path, status: int) -> None:
    server.status = status
    message = refusal(server.url, tmp_path)
    assert str(status) in message
    assert f"{server.url}/clip.mp4" in message
    assert len(server.asked) == 1


@pytest.mark.usefixtures("server")
def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "Connection refused" in refusal(f"http://127.0.0.1:{port}", tmp_path)


@pytest.mark.usefixtures("server")
def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIME_LIMITS_S", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and never says a word
        start_s = time.monotonic()
        assert "timed out" in refusal(f"http://127.0.0.1:{mute.getsockname()[1]}", tmp_path)
    assert time.monotonic() - start_s < 5


def test_a_place_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4.part").mkdir()
    assert "cannot be written" in refusal(server.url, tmp_path)
