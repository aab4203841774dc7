"""What people look at, looked at: the MLflow UI and the report, in headless Chromium."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")

from mlflow import MlflowClient
from playwright.sync_api import Browser, Locator, Page, expect

from deepstab.config import Params, flatten
from deepstab.data.manifest import MANIFEST_NAME, Manifest, Problem, VideoFile, VideoPair
from deepstab.evaluation.draw import draw_report
from deepstab.evaluation.results import Evaluation, file_name
from deepstab.video.writer import write_video
from tests.browser.watched import CHROMIUM, TIMEOUT_MS, Watched
from tests.checkout import Checkout
from tests.services import mlflow_server
from tests.unit.evaluation.test_plots import history
from tests.unit.evaluation.test_results import evaluation
from tests.unit.evaluation.test_results import video as measured_video

EXPERIMENT = "slow-learner"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, reproduced: Checkout) -> Checkout:
    """The small pipeline after two experiments."""
    made = reproduced.copy(tmp_path_factory.mktemp("project") / "checkout")
    made.run("dvc", "exp", "run", "-n", EXPERIMENT, "-S", "train.lr_g=0.0002")
    return made


@pytest.fixture(scope="module")
def server(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on the project's store."""
    service = mlflow_server(checkout.root, tmp_path_factory.mktemp("server") / "log")
    service.start()
    try:
        service.wait()
        yield service.uri
    finally:
        service.kill()


@pytest.fixture(scope="module")
def run_ids(server: str) -> dict[str, str]:
    """Run name to id."""
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("deepstab-gan")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: run.info.run_id for run in runs}


@pytest.fixture(scope="module")
def mlflow_ui(browser: Browser, server: str) -> Iterator[Watched]:
    """MLflow as one who trains models sets it up once: the assistant away, `Model training` on."""
    watched = Watched(browser.new_page(viewport={"width": 1400, "height": 1000}))
    page = watched.page
    page.goto(f"{server}/#/experiments")
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("button", name="Model training").click()
    yield watched
    assert [url for url in watched.requests if not url.startswith((server, "data:", "blob:"))] == []


@pytest.fixture
def open_page(mlflow_ui: Watched, server: str) -> Callable[[str], Page]:
    def open_path(path: str) -> Page:
        mlflow_ui.page.goto("about:blank")  # the path is a fragment: nothing else reloads
        mlflow_ui.page.goto(f"{server}/#/{path}")
        return mlflow_ui.page

    return open_path


def test_the_list_of_experiments_leads_to_the_runs(
    mlflow_ui: Watched, open_page: Callable[[str], Page], run_ids: dict[str, str]
) -> None:
    page = open_page("experiments")
    page.get_by_role("link", name="deepstab-gan").click()
    assert len(run_ids) == 2
    for name in run_ids:
        expect(page.get_by_role("link", name=name)).to_be_visible()
    expect(page.get_by_text("flights-training").first).to_be_visible()
    expect(page.get_by_text("2 matching runs")).to_be_visible()
    mlflow_ui.save("mlflow-runs")


def test_a_run_shows_parameters_charts_plots_and_its_report(
    mlflow_ui: Watched, open_page: Callable[[str], Page], run_ids: dict[str, str]
) -> None:
    run = f"experiments/1/runs/{run_ids[EXPERIMENT]}"
    page = open_page(run)
    expect(page.get_by_text("About this run")).to_be_visible()
    expect(page.get_by_text("dvc.experiment: " + EXPERIMENT)).to_be_visible()
    page.get_by_placeholder("Search parameters").fill("train.lr_g")
    expect(page.get_by_role("row", name="train.lr_g 0.0002")).to_be_visible()
    mlflow_ui.save("mlflow-run")

    page.get_by_role("tab", name="Model metrics").click()
    assert_charts(page, EXPERIMENT)
    mlflow_ui.save("mlflow-metrics")

    page = open_page(f"{run}/artifacts/plots/side_by_side.png")
    picture = page.get_by_role("main").locator("img").first
    expect(picture).to_be_visible()
    page.wait_for_function("image => image.naturalWidth > 400", arg=picture.element_handle())
    mlflow_ui.save("mlflow-plot")

    page = open_page(f"{run}/artifacts/reports/report.html")
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", name="Stabilization report")).to_be_visible()
    expect(report.get_by_text("GENERATED virtual flights")).to_be_visible()
    mlflow_ui.save("mlflow-report")
    assert_plays(page, report.locator("video").first)


def test_two_runs_are_compared(
    mlflow_ui: Watched, open_page: Callable[[str], Page], run_ids: dict[str, str]
) -> None:
    page = open_page("experiments/1/runs?compareRunsMode=CHART")
    assert_charts(page, *run_ids)
    mlflow_ui.save("mlflow-charts-of-two")

    ids = ",".join(f'"{run_id}"' for run_id in run_ids.values())
    page = open_page(f'compare-runs?runs=[{ids}]&experiments=["1"]')
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    for name in run_ids:
        expect(page.get_by_role("cell", name=name, exact=True).first).to_be_visible()
    row = page.get_by_role("row", name="train.lr_g 0.0")
    unchanged = page.get_by_role("row", name="train.epochs 2 2")
    expect(unchanged).to_be_visible()
    page.get_by_text("Show diff only").first.click()
    expect(unchanged).to_be_hidden()
    for value in ("0.0002", "0.002"):
        expect(row.get_by_text(value, exact=True)).to_be_visible()
    row.scroll_into_view_if_needed()
    expect(page.get_by_text("cropped_ssim", exact=True)).to_be_visible()
    mlflow_ui.save("mlflow-comparison")


def test_the_registered_model_has_its_alias(
    mlflow_ui: Watched, open_page: Callable[[str], Page], server: str, run_ids: dict[str, str]
) -> None:
    client = MlflowClient(server)
    run = client.get_run(run_ids[EXPERIMENT])
    client.create_registered_model("deepstab-gan")
    weights = f"{run.info.artifact_uri}/checkpoints/best_stab_gan.pth"
    client.create_model_version("deepstab-gan", weights, run_id=run.info.run_id)
    client.set_registered_model_alias("deepstab-gan", "champion", "1")
    page = open_page("models/deepstab-gan")
    row = page.get_by_role("row", name="Version 1")
    expect(row).to_be_visible()
    expect(row.get_by_text("@ champion")).to_be_visible()
    mlflow_ui.save("mlflow-model")


@pytest.mark.parametrize(
    ("width", "colors"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
)
def test_the_report_plays_and_needs_nothing(
    browser: Browser, checkout: Checkout, width: int, colors: Any
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colors)
    watched = Watched(page)
    page.goto((checkout.root / "reports/report.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("Stabilization report")
    expect(page.get_by_text("GENERATED virtual flights")).to_be_visible()
    for row in ("baseline", "untrained"):
        expect(page.get_by_role("columnheader", name=row).first).to_be_visible()
    charts = page.locator("[role=img] > svg")
    assert charts.count() == 3 + 4 + 7  # camera path, validation, losses that are on
    page.get_by_text("x, px @640", exact=True).scroll_into_view_if_needed()
    axis = charts.first.get_by_text("frame", exact=True)
    expect(axis).to_be_visible()
    assert axis.evaluate("text => getComputedStyle(text).fill") == page.locator(
        ".soft"
    ).first.evaluate("text => getComputedStyle(text).color")
    page.get_by_text(EXPERIMENT).first.wait_for()
    players = page.locator("video")
    assert players.count() == 1
    assert_plays(page, players.first)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    watched.save(f"report-{width}-{colors}", full=True)
    assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []
    assert watched.errors == []
    page.close()


HOSTILE = (
    "<img src=http://attacker.example/x onerror=\"alert('name')\">",
    '"><script>alert("name")</script>',
    "' onmouseover='alert(1)' x='",
    '" autofocus onfocus=alert(1) x="',
    "</title></style></svg></bdi><svg onload=alert(1)>",
    "a&amp;b&lt;c&#60;d & e",
    "{{ 7 * 7 }}{% raw %}",
    "../../../x",
    "photo\u202egpj.exe\u2066",
    "$x^2$ \\frac{1}{0}",
    "javascript:alert(1)",
)


@pytest.fixture
def hostile_report(tmp_path: Path, tiny_params: Params) -> Path:
    """The page of videos with hostile names, drawn from files as the report stage does."""
    video = VideoFile("x.mp4", "0" * 64, 20, 30.0, 12, 8)
    pairs = [VideoPair(name, f"of {name}", "test", video, video, 20) for name in HOSTILE]
    problems = [Problem(f"a\n{name}", f"b\n{name}", "left out") for name in HOSTILE]
    Manifest(HOSTILE[0], "folder", tuple(pairs), tuple(problems)).save(tmp_path / MANIFEST_NAME)
    measured = evaluation(*(measured_video(name) for name in HOSTILE))
    facts = {"mlflow.source.git.branch": HOSTILE[0], "dvc.experiment": HOSTILE[1]}
    replace(measured, facts=measured.facts | facts).save(tmp_path / "measures.json")
    rows = history(30.0, 31.0)
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (tmp_path / "history.csv").write_text("\n".join(lines))
    (tmp_path / "videos").mkdir()
    for pair in pairs:
        write_video(
            tmp_path / "videos" / f"{file_name(pair.name)}.mp4",
            [np.zeros((16, 16, 3), np.uint8)] * 2,
            frame_rate=Fraction(30),
            crf=30,
        )
    draw_report(
        Evaluation.load(tmp_path / "measures.json"),
        Manifest.load(tmp_path / MANIFEST_NAME),
        params=flatten(tiny_params) | {"data.kaggle_root": HOSTILE[0]},
        reports=tmp_path,
    )
    return tmp_path / "report.html"


def test_hostile_names_are_text(browser: Browser, hostile_report: Path) -> None:
    watched = Watched(browser.new_page())
    dialogs: list[str] = []
    watched.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    watched.page.goto(hostile_report.as_uri())
    page = watched.page
    headers = page.locator("#videos tbody th").all()
    shown = {header.locator("bdi").first.text_content() for header in headers}
    assert shown == set(HOSTILE)
    for name in HOSTILE:
        assert page.locator("li", has_text=f"a\n{name}: b\n{name} (left out)").count() >= 1
    assert (
        page.locator("script, iframe, img, object, embed, base, form, link:not([rel=icon])").count()
        == 0
    )
    assert (
        page.evaluate(
            "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
            ".filter(a => a.name.startsWith('on')).length"
        )
        == 0
    )
    for element in page.locator("summary, video, [tabindex]").all():
        element.hover()
        element.focus()
    watched.save("report-hostile", full=True)
    assert dialogs == []
    assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []
    assert watched.errors == []
    page.close()


def test_what_came_into_the_page_all_the_same_would_not_run(
    browser: Browser, hostile_report: Path
) -> None:
    """As if a name had not been escaped: the page's own policy holds."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as elsewhere:
        Thread(target=elsewhere.serve_forever).start()
        there = f"http://127.0.0.1:{elsewhere.server_port}/"
        injected = (
            '<script>document.documentElement.dataset.run = "1"</script>'
            f'<script src="{there}x.js"></script><iframe src="{there}"></iframe>'
            f'<img src="{there}x" onerror="document.documentElement.dataset.run = 1">'
            '<a href="javascript:document.documentElement.dataset.run = 1">go</a>'
            f'<form action="{there}"><button>send</button></form>'
        )
        content = hostile_report.read_text().replace("<main>", f"<main>{injected}")
        assert injected in content
        hostile_report.write_text(content)
        watched = Watched(browser.new_page())
        watched.page.goto(hostile_report.as_uri())
        watched.page.get_by_text("go", exact=True).click()
        # A click would wait for the page that never comes.
        watched.page.get_by_text("send", exact=True).dispatch_event("click")
        watched.page.wait_for_timeout(300)
        ran = watched.page.locator("html[data-run]").count()
        stayed = watched.page.url == hostile_report.as_uri()
        watched.page.close()
        elsewhere.shutdown()
    assert (ran, stayed, asked) == (0, True, [])
    assert any("Content Security Policy" in error for error in watched.errors)


def assert_charts(page: Page, *runs: str) -> None:
    """There are charts by section, with a line for every run."""
    sections = page.get_by_test_id("experiment-view-compare-runs-section-header")
    for name in ("step", "test/untrained"):
        expect(sections.filter(has=page.get_by_text(name, exact=True)).first).to_be_visible()
    steps = sections.filter(has=page.get_by_text("step", exact=True)).first
    steps.evaluate("section => section.scrollIntoView()")  # charts are drawn when they are seen
    for run in runs:
        expect(page.get_by_text(f"{run} (step/gan)").first).to_be_visible()
    expect(page.locator(".js-plotly-plot .js-line").nth(len(runs) - 1)).to_be_visible()


def assert_plays(page: Page, video: Locator) -> None:
    """The video starts by itself once it is seen, has pictures, and starts over at its end."""
    video.scroll_into_view_if_needed()
    element = video.element_handle()
    playing = "video => video.videoWidth > 0 && video.currentTime > 0.2 && !video.paused"
    video.evaluate("video => { video.seeks = 0; video.onseeked = () => video.seeks++; }")
    assert video.evaluate("video => [video.muted, video.controls]") == [True, True]
    assert element is not None
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not video.evaluate(playing):
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    while not video.evaluate("video => video.seeks > 0"):
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
