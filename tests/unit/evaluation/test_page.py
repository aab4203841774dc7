"""The page holds what was measured, in order, and nothing that was put into a name."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deepstab.config import Params, flatten
from deepstab.data.manifest import Manifest, VideoFile, VideoPair
from deepstab.evaluation.page import render_page
from deepstab.evaluation.results import ROWS, file_name
from tests.unit.evaluation.test_plots import history
from tests.unit.evaluation.test_results import evaluation, video

HOSTILE = '<script src="https://evil.example/x.js"></script>'


class _Text(HTMLParser):
    """Tags with their attributes, and the text as it is read."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def arguments(tmp_path: Path, tiny_params: Params) -> dict[str, Any]:
    names = {"calm": 0.1, "wild": 5.0, HOSTILE: 2.0}
    videos = [video(n, input=4.0, baseline=0.25, stabilized=x) for n, x in names.items()]
    file = VideoFile("x.mp4", "0" * 64, 20, 30.0, 12, 8)
    pairs = [VideoPair(v.name, f"scene of {v.name}", "test", file, file, 20) for v in videos]
    for pair in pairs:
        player = tmp_path / f"{file_name(pair.name)}.mp4"
        player.write_bytes(b"video" * 100)
    return {
        "evaluation": evaluation(*videos),
        "manifest": Manifest("flights", "flights", tuple(pairs), ()),
        "params": flatten(tiny_params),
        "history": history(30.0, 31.0),
        "players": tmp_path,
    }


def render(arguments: dict[str, Any]) -> str:
    rest = {k: v for k, v in arguments.items() if k not in ("evaluation", "manifest")}
    return render_page(arguments["evaluation"], arguments["manifest"], **rest)


def test_the_same_arguments_give_the_same_page(arguments: dict[str, Any]) -> None:
    assert render(arguments) == render(arguments)


def test_nothing_is_loaded_and_names_stay_text(arguments: dict[str, Any]) -> None:
    read = _Text(render(arguments))
    assert HOSTILE in read.text
    names = [tag for tag, _ in read.tags]
    assert "script" not in names
    assert names.count("video") == 3
    for tag, attributes in read.tags:
        for key in ("src", "href", "poster", "srcset"):
            assert (attributes.get(key) or "data:").startswith("data:"), (tag, key)


def test_the_worst_video_comes_first(arguments: dict[str, Any]) -> None:
    headings = re.findall(r'<h3 id="shown-\d+"><bdi>([^<&]+)', render(arguments))
    rows = re.findall(r'<tr><th scope="row"><bdi>(wild|calm|&lt;script)', render(arguments))
    assert [heading.strip() for heading in headings] == ["wild", "calm"]  # the third is escaped
    assert rows == ["wild", "&lt;script", "calm"]
    assert "worse than the input" in render(arguments)


def test_the_run_the_commit_and_every_parameter_are_named(arguments: dict[str, Any]) -> None:
    text = _Text(render(arguments)).text
    for expected in ("1234567890abcdef", "c0ffeec0ff", "with uncommitted changes"):
        assert expected in text
    for key in arguments["params"]:
        assert key in text
    untracked = replace(arguments["evaluation"], run_id="")
    assert "not tracked" in _Text(render(arguments | {"evaluation": untracked})).text


def test_generated_data_are_said_so_and_filmed_ones_are_not(arguments: dict[str, Any]) -> None:
    assert 'class="banner"' in render(arguments)
    manifest = arguments["manifest"]
    filmed = Manifest("kaggle", "kaggle", manifest.pairs, ())
    assert 'class="banner"' not in render(arguments | {"manifest": filmed})


def test_the_page_stays_small(arguments: dict[str, Any]) -> None:
    for path in arguments["players"].iterdir():
        path.write_bytes(bytes(2_000_000))
    content = render(arguments)
    assert content.count("<video") == 2
    assert "left out to keep this page small" in content
    assert len(content) < 8_000_000


def test_what_could_not_be_measured_is_said(arguments: dict[str, Any]) -> None:
    arguments["evaluation"].videos[0].measures["crop"] = dict.fromkeys(ROWS, float("nan"))
    content = render(arguments)
    assert "nan" not in _Text(content).text
    assert "n/a" in content


def test_a_plain_regressor_is_not_said_to_be_zoomed(arguments: dict[str, Any]) -> None:
    said = "zoomed so that no border shows"
    assert said in render(arguments)
    params = {**arguments["params"], "model.head": "fc"}
    assert said not in render(arguments | {"params": params})
