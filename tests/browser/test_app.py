"""The page of `deepstab app`, as a visitor has it: the real command, a real video, Chromium."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")

from playwright.sync_api import Browser, Page, expect

from deepstab.video.frames import count_frames
from tests.browser.watched import CHROMIUM, TIMEOUT_MS, Watched
from tests.e2e.test_cli import NUM_FRAMES, make_clip
from tests.services import free_port

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
LIMIT_MIB = 3


@dataclass
class Serving:
    """The command, its address and the folder for its temporary files."""

    process: subprocess.Popen[str]
    address: str
    temporary: Path

    def leftovers(self) -> list[str]:
        return [path.name for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    port, temporary = free_port(), tmp_path_factory.mktemp("temporary")
    command = [Path(sys.executable).with_name("deepstab"), "app", "--port", str(port)]
    with subprocess.Popen(
        [*map(str, command), "--most-mib", str(LIMIT_MIB), "--most-minutes", "0.2"],
        env={**os.environ, "TMPDIR": str(temporary)},
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


@pytest.fixture(scope="module")
def visit(serving: Serving, browser: Browser) -> Iterator[Watched]:
    watched = Watched(browser.new_page(viewport={"width": 1280, "height": 900}))
    watched.page.goto(serving.address)
    yield watched
    watched.page.close()
    # It works on a machine without a network, and tells nobody.
    own = (serving.address, "data:", "blob:")
    assert [url for url in watched.requests if not url.startswith(own)] == []
    assert watched.errors == []


def stabilize(page: Page, video: Path) -> None:
    if page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).count():
        page.get_by_label("Clear").first.click()
    page.set_input_files("input[type=file]", video)
    expect(page.get_by_text(video.name).first).to_be_visible()
    page.get_by_role("button", name="Stabilize").click()


def test_before_and_after_play_together_with_scores_and_a_download(
    visit: Watched, tmp_path: Path
) -> None:
    page = visit.page
    stabilize(page, make_clip(tmp_path / "über See.mp4"))
    players = page.locator(".players")
    expect(players).to_be_visible(timeout=2 * TIMEOUT_MS)
    cells = page.locator(".scores tbody tr").first.locator("td").all_inner_texts()
    assert cells[0].startswith("Jitter")
    assert float(cells[2]) < 0.6 * float(cells[1])
    assert page.locator(".paths polyline").count() == 6
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "über_See-steady.mp4"
    download.value.save_as(tmp_path / "steady.mp4")
    assert count_frames(tmp_path / "steady.mp4") == NUM_FRAMES
    page.wait_for_function("document.querySelector('.leads').readyState > 2")
    page.evaluate("document.querySelector('.leads').pause()")
    page.evaluate("document.querySelector('.leads').currentTime = 0.5")
    page.wait_for_function("document.querySelector('.follows').currentTime == 0.5")
    for scheme, width in (("light", 1280), ("dark", 390)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        visit.save(f"app-{scheme}-{width}", full=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_what_is_damaged_or_too_long_gets_the_one_line(visit: Watched, tmp_path: Path) -> None:
    damaged = make_clip(tmp_path / "damaged.mp4")
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    long = make_clip(tmp_path / "long.mp4", num_frames=380, size=(64, 48))
    for video, said in ((damaged, "video damaged.mp4"), (long, "more than the 12 allowed")):
        stabilize(visit.page, video)
        line = visit.page.locator(".failed", has_text=said)
        expect(line).to_be_visible()
        assert "\n" not in line.inner_text()
        assert str(tmp_path) not in line.inner_text()


def test_cancelled_work_ends_and_leaves_nothing(
    visit: Watched, serving: Serving, tmp_path: Path
) -> None:
    page = visit.page
    stabilize(page, make_clip(tmp_path / "slow.mp4", num_frames=340, size=(160, 120)))
    expect(page.locator(".working progress[value]")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled.")).to_be_visible()
    assert [name for name in serving.leftovers() if "steady" in name or "part" in name] == []
    expect(page.get_by_role("button", name="Stabilize")).to_be_enabled()


def test_what_is_too_large_is_not_taken(serving: Serving, browser: Browser, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes((LIMIT_MIB + 1) * 2**20))
    page = browser.new_page()
    page.goto(serving.address)
    page.set_input_files("input[type=file]", large)
    expect(page.get_by_text("maximum allowed size")).to_be_visible()
    page.close()
    assert "large.mp4" not in serving.leftovers()
