"""Charts are one drawing each, in the page's colors, and say in words what they show."""

from __future__ import annotations

import math
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
def test_losses_that_are_off_are_not_drawn(psnr: list[float]) -> None:
    charts = {one.title: one for one in learning_charts(history(*psnr))}
    assert "training loss: vgg" not in charts
    assert len(charts) == 2 + len(LOSSES) - 1


def test_epoch_zero_has_validation_alone_and_columns_may_come() -> None:
    nothing_trained = dict.fromkeys((*LOSSES, "discriminator_accuracy"), math.nan)
    start = {"epoch": 0, **nothing_trained, "psnr": 29.0, "cropped_ssim": 0.5, "motion_error": 2.0}
    rows = [start, *(row | {"motion_error": 0.25} for row in history(30.0, 31.0))]
    charts = {one.title: one for one in learning_charts(rows)}
    assert "from 29 to 31" in charts["validation PSNR, dB"].description
    assert "from 2 to 0.25" in charts["validation motion error, px @640"].description
    assert "from 1 to 1" in charts["training loss: pixel"].description
    assert "validation discriminator accuracy" not in charts
    losses, psnr, _, motion = loss_curves(rows).axes
    assert list(losses.lines[0].get_xdata()) == [1, 2]
    assert list(psnr.lines[0].get_xdata()) == [0, 1, 2]
    assert list(motion.lines[0].get_ydata()) == [2.0, 0.25, 0.25]


def test_figures_hold_the_values() -> None:
    left, psnr, _ = loss_curves(history(30.0, 31.0)).axes
    assert {line.get_label() for line in left.lines} == {*LOSSES} - {"vgg"}
    assert [list(line.get_ydata()) for line in psnr.lines] == [[30.0, 31.0]]
    x, y, roll = camera_paths(video("no $formula_")).axes
    assert x.get_title() == "video no $formula_: x, px @640"
    for axes, last in ((x, 19.0), (y, -19.0), (roll, np.degrees(19 / 7))):
        assert {line.get_label(): line.get_ydata()[-1] for line in axes.lines} == dict.fromkeys(
            ROWS, pytest.approx(last)
        )


def test_no_axis_turns_noise_into_a_trend() -> None:
    _, psnr, ssim = loss_curves(history(32.00, 32.01)).axes
    assert psnr.get_ylim() == pytest.approx((31.505, 32.505))
    assert ssim.get_ylim() == pytest.approx((0.975, 1.025))
    _, wide, _ = loss_curves(history(20.0, 30.0)).axes
    assert wide.get_ylim() == pytest.approx((19.5, 30.5))
    charts = {one.title: one for one in learning_charts(history(32.0, 32.01))}
    assert "0.0" in texts(charts["training loss: pixel"])
