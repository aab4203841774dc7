"""Charts are one drawing each, in the page's colors, and say in words what they show."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from deepstab.evaluation.plots import Chart, camera_paths, learning_charts, loss_curves, path_charts
from deepstab.evaluation.results import ROWS
from tests.unit.evaluation.test_results import video

LOSSES = ("total", "gan", "pixel", "vgg", "smooth", "identity", "discriminator")


def history(*psnr: float) -> list[dict[str, float]]:
    rest = dict.fromkeys((*LOSSES, "cropped_ssim"), 1.0) | {"vgg": 0.0}
    return [{"epoch": number, **rest, "psnr": x} for number, x in enumerate(psnr, start=1)]


def texts(chart: Chart) -> list[str]:
    root = ET.fromstring(chart.svg.replace("xlink:href", "href"))
    return [element.text or "" for element in root.iter("text")]


def test_a_drawing_follows_the_page_and_shares_no_names() -> None:
    charts = path_charts(video("a"), num_frames=20)
    assert [chart.title for chart in charts] == ["x, px @640", "y, px @640", "roll, deg"]
    for chart in charts:
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart.svg)) == set()
        for row in ROWS:
            assert f"var(--{row})" in chart.svg
        assert len(chart.svg) < 25_000
    names = [name for chart in charts for name in re.findall(r' id="([^"]+)"', chart.svg)]
    assert len(names) == len(set(names))
    assert path_charts(video("a"), num_frames=20) == charts


def test_the_words_and_the_axis_say_what_the_first_frames_do() -> None:
    x, _, roll = path_charts(video("a"), num_frames=8)
    assert "input from 0 to 7, lowest 0, highest 7" in x.description
    assert f"highest {np.degrees(1):.4g}" in roll.description
    assert "frame" in texts(x)
    assert "8" not in texts(x)


@pytest.mark.parametrize("psnr", [[32.0], [32.0026, 32.0895], [-5e4, 1e6]])
def test_losses_that_are_off_are_not_drawn_and_the_input_is_where_it_is_known(
    psnr: list[float],
) -> None:
    charts = {one.title: one for one in learning_charts(history(*psnr), {"psnr": 30.0})}
    assert "training loss: vgg" not in charts
    assert len(charts) == 2 + len(LOSSES) - 1
    assert "var(--input)" in charts["validation PSNR, dB"].svg
    assert "var(--input)" not in charts["validation Cropped SSIM"].svg


def test_figures_hold_the_values() -> None:
    left, psnr, ssim = loss_curves(history(30.0, 31.0), {"psnr": 28.0}).axes
    assert {line.get_label() for line in left.lines} == {*LOSSES} - {"vgg"}
    assert [list(line.get_ydata()) for line in psnr.lines] == [[30.0, 31.0], [28.0, 28.0]]
    assert len(ssim.lines) == 1
    x, y, roll = camera_paths(video("no $formula_")).axes
    assert x.get_title() == "video no $formula_: x, px @640"
    for axes, last in ((x, 19.0), (y, -19.0), (roll, np.degrees(19 / 7))):
        assert {line.get_label(): line.get_ydata()[-1] for line in axes.lines} == dict.fromkeys(
            ROWS, pytest.approx(last)
        )
