"""The page of `deepstab app`, as a visitor has it: the real command, a real video, Chromium."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")

from playwright.sync_api import Browser, Page, expect

from deepstab.video.frames import count_frames
from tests.browser.watched import CHROMIUM, TIMEOUT_MS, Watched
from tests.e2e.test_cli import NUM_FRAMES, make_clip
from tests.services import free_port
from tests.unit.video.test_confined import spawned

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
LIMIT_MIB = 10


@dataclass
class Serving:
    """The command, its address and the folder for its temporary files."""

    process: subprocess.Popen[str]
    address: str
    temporary: Path

    def leftovers(self) -> list[str]:
        """Files with something in them."""
        files = (path for path in self.temporary.rglob("*") if path.is_file())
        return [path.name for path in files if path.stat().st_size]

    def workers(self) -> int:
        """How many processes work on a video."""
        return len(spawned(psutil.Process(self.process.pid)))


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is not on the page."""
    deadline = time.monotonic() + 3 * TIMEOUT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    port, temporary = free_port(), tmp_path_factory.mktemp("temporary")
    command = [Path(sys.executable).with_name("deepstab"), "app", "--port", str(port)]
    with subprocess.Popen(
        [*map(str, command), "--most-mib", str(LIMIT_MIB), "--most-minutes", "0.2"],
        # As in an office, but that its proxy answers nothing.
        env={**os.environ, "TMPDIR": str(temporary), "HTTP_PROXY": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if "http" in line or "error" in line)
            assert said == f"DeepStab is at http://127.0.0.1:{port}; Ctrl-C ends it\n"
            yield Serving(process, f"http://127.0.0.1:{port}", temporary)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stdout.read() == "interrupted\n"
            assert list(temporary.iterdir()) == []
        finally:
            process.kill()


@pytest.fixture
def visit(serving: Serving, browser: Browser) -> Iterator[Watched]:
    watched = Watched(browser.new_page(viewport={"width": 1280, "height": 900}))
    watched.page.goto(serving.address)
    yield watched
    watched.page.close()
    # It works on a machine without a network, and tells nobody.
    own = (serving.address, "data:", "blob:")
    assert [url for url in watched.requests if not url.startswith(own)] == []
    assert watched.errors == []
    # What was uploaded and made is gone with the page.
    until(lambda: serving.leftovers() == [])


def choose(page: Page, video: Path) -> None:
    if page.get_by_label("Clear").count():
        page.get_by_label("Clear").first.click()
    page.set_input_files("input[type=file]", video)
    expect(page.get_by_text(video.name).first).to_be_visible()


def stabilize(page: Page, video: Path) -> None:
    choose(page, video)
    page.get_by_role("button", name="Stabilize").click()


def test_before_and_after_play_together_with_scores_and_a_download(
    visit: Watched, tmp_path: Path
) -> None:
    page = visit.page
    stabilize(page, make_clip(tmp_path / "über See.mp4"))
    # There before its scores are.
    expect(page.locator(".players")).to_be_visible(timeout=3 * TIMEOUT_MS)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "über_See-steady.mp4"
    download.value.save_as(tmp_path / "steady.mp4")
    assert count_frames(tmp_path / "steady.mp4") == NUM_FRAMES
    page.wait_for_function("document.querySelector('.leads').readyState > 2")
    page.evaluate("document.querySelector('.leads').pause()")
    page.wait_for_function("document.querySelector('.follows').paused")
    page.evaluate("document.querySelector('.leads').currentTime = 0.5")
    page.wait_for_function("document.querySelector('.follows').currentTime == 0.5")
    page.locator(".follows").click()
    page.wait_for_function("!document.querySelector('.leads').paused")
    expect(page.get_by_text("Done.")).to_be_visible(timeout=3 * TIMEOUT_MS)
    cells = [row.split("\t") for row in page.locator(".scores tbody").inner_text().splitlines()]
    figures = {name.split("  ")[0]: (float(a), float(b)) for name, a, b in cells}
    (jitter,) = (both for name, both in figures.items() if name.startswith("Jitter"))
    assert jitter[1] < 0.6 * jitter[0]
    assert page.locator(".paths polyline").count() == 6
    for scheme, width in itertools.product(("light", "dark"), (1280, 390)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        visit.save(f"app-{scheme}-{width}", full=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_damaged_or_too_long_gets_the_one_line(visit: Watched, tmp_path: Path) -> None:
    damaged = make_clip(tmp_path / "damaged.mp4")
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    long = make_clip(tmp_path / "long.mp4", num_frames=13 * 30, size=(64, 48))
    for video, said in ((damaged, "video damaged.mp4"), (long, "more than the 12 allowed")):
        stabilize(visit.page, video)
        line = visit.page.locator(".failed", has_text=said)
        expect(line).to_be_visible()
        assert "\n" not in line.inner_text()
        assert "/" not in line.inner_text()
    expect(visit.page.get_by_role("button", name="Stabilize")).to_be_enabled()


def test_a_queue_and_canceled_work_ends_and_leaves_nothing(
    visit: Watched, serving: Serving, browser: Browser, tmp_path: Path
) -> None:
    page, other = visit.page, browser.new_page()
    slow = make_clip(tmp_path / "slow.mp4", num_frames=350, size=(480, 320))
    other.goto(serving.address)
    choose(other, slow)
    stabilize(page, slow)
    expect(page.locator(".working progress[value]")).to_be_visible()
    other.get_by_role("button", name="Stabilize").click()
    expect(other.get_by_text("Waiting: one video comes first")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Canceled.", exact=True)).to_be_visible()
    assert [name for name in serving.leftovers() if name != slow.name] == []
    expect(page.get_by_role("button", name="Stabilize")).to_be_enabled()
    # It is the other's turn, who closes the page while the work is under way.
    expect(other.locator(".working progress[value]")).to_be_visible()
    assert serving.workers() == 1
    other.close()
    until(lambda: serving.workers() == 0)


def test_what_is_too_large_is_not_taken(serving: Serving, browser: Browser, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes((LIMIT_MIB + 1) * 2**20))
    page = browser.new_page()
    page.goto(serving.address)
    page.set_input_files("input[type=file]", large)
    expect(page.get_by_text("maximum allowed size")).to_be_visible()
    page.close()
    until(lambda: serving.leftovers() == [])


def test_names_of_other_sites_that_lead_here_are_refused(serving: Serving) -> None:
    def status(host: str) -> int:
        with closing(HTTPConnection(serving.address.removeprefix("http://"))) as connection:
            connection.request("GET", "/", headers={"Host": host})
            return connection.getresponse().status

    assert [status(host) for host in ("localhost", "rebound.example")] == [200, 400]
