"""Curves and camera paths, as PNG files for MLflow and DVC and as SVG for the page.

Both are drawn by matplotlib, the same bytes for the same figures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from deepstab.evaluation.results import ROWS, VideoResult
from deepstab.evaluation.tables import MEASURES
from deepstab.metrics.stability import CameraPath

Series = Mapping[str, Sequence[float] | NDArray[np.float64]]
"""Row of `ROWS` -> values, all of one length."""

History = Sequence[Mapping[str, float]]
"""One row per epoch, as in reports/history.csv."""

_LOSSES = ("total", "gan", "pixel", "vgg", "smooth", "identity", "discriminator")
_VALIDATION = ("psnr", "cropped_ssim")
_COLORS = {
    "input": "#c2571a",
    "baseline": "#177a5b",
    "untrained": "#8a4bbf",
    "stabilized": "#1f5fd0",
}
_DASHES = {"input": "-", "baseline": "--", "untrained": "-.", "stabilized": "-"}
_TEXT, _GRID = "#57606a", "#d5d9de"
# In the page the style sheet's colors, which follow the reader's light or dark.
_CSS_COLORS = {
    **{color: f"var(--{row})" for row, color in _COLORS.items()},
    _TEXT: "var(--soft)",
    _GRID: "var(--edge)",
}
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "text.color": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",  # text stays text
}
_CHART_SIZE = (3.2, 1.8)  # inches of 72 SVG units
_MAX_MARKERS = 20  # more would hide the line
_ONLY_DRAWING = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Chart:
    """A small chart for the page: `description` says in words what the `svg` shows."""

    title: str
    description: str
    svg: str


def path_charts(video: VideoResult, *, num_frames: int) -> list[Chart]:
    """The camera path of one video in every row, as measured on its first frames."""
    signals = {row: _signals(path) for row, path in video.paths.items()}
    return [
        _chart(title, {row: signals[row][title][:num_frames] for row in ROWS}, "frame", first=0)
        for title in signals["input"]
    ]


def learning_charts(history: History, as_filmed: Mapping[str, float]) -> list[Chart]:
    """Validation figures and training losses per epoch; losses that are switched off are not.

    Args:
        history: at least one epoch.
        as_filmed: the input's own validation figures, as far as they are known.
    """
    titles = {f"validation {MEASURES[name].title}": name for name in _VALIDATION}
    titles |= {f"training loss: {name}": name for name in _LOSSES}
    charts = []
    for title, name in titles.items():
        values = [row[name] for row in history]
        if any(values):
            series = {"stabilized": values}
            if name in as_filmed:
                series = {"input": [as_filmed[name]] * len(values), **series}
            charts.append(_chart(title, series, "epoch", first=1))
    return charts


def loss_curves(history: History, as_filmed: Mapping[str, float]) -> Figure:
    """Mean training terms per epoch, and validation PSNR and Cropped SSIM beside the input's."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    left, *others = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    for name in _LOSSES:
        values = [row[name] for row in history]
        if any(values):
            left.plot(epochs, values, marker=".", label=name)
    left.set(title="training loss, unweighted terms", xlabel="epoch", yscale="log")
    left.legend(fontsize="small")
    for axes, name in zip(others, _VALIDATION, strict=True):
        axes.plot(epochs, [row[name] for row in history], marker=".", label="stabilized")
        if name in as_filmed:
            axes.axhline(as_filmed[name], color="gray", linestyle="--", label="input")
        axes.set(title=f"validation {MEASURES[name].title}", xlabel="epoch")
        axes.legend(fontsize="small")
    return figure


def camera_paths(video: VideoResult) -> Figure:
    """The camera path of one video in every row, as measured on its frames."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    signals = {row: _signals(path) for row, path in video.paths.items()}
    panels = figure.subplots(1, len(signals["input"]))
    for axes, title in zip(panels, signals["input"], strict=True):
        _draw(axes, {row: signals[row][title] for row in ROWS}, first=0)
        # A name is not a formula, whatever characters it has.
        axes.set_title(f"video {video.name}: {title}", parse_math=False)
        axes.set_xlabel("frame")
    panels[0].legend(fontsize="small")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _signals(path: CameraPath) -> dict[str, NDArray[np.float64]]:
    return {
        "x, px @640": path.shift_px[:, 0],
        "y, px @640": path.shift_px[:, 1],
        "roll, deg": np.degrees(path.angle_rad),
    }


def _draw(axes: Axes, series: Series, *, first: int) -> None:
    for row, values in series.items():
        axes.plot(
            range(first, first + len(values)),
            values,
            label=row,
            color=_COLORS[row],
            linestyle=_DASHES[row],
            linewidth=1.2,
            marker="." if len(values) <= _MAX_MARKERS else None,
        )


def _chart(title: str, series: Series, x_title: str, *, first: int) -> Chart:
    # The salt names the shapes inside the SVG: charts on one page must not share them.
    salt = f"{title}{sorted(series.items(), key=str)}"
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=_CHART_SIZE, layout="constrained")
        axes = figure.subplots()
        _draw(axes, series, first=first)
        axes.set_xlabel(x_title)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=_ONLY_DRAWING)
    words = "; ".join(_in_words(row, values) for row, values in series.items())
    return Chart(title, f"{title}: {words}", _for_page(text.getvalue()))


def _for_page(svg: str) -> str:
    """Keep the drawing alone, as wide as its place and in the page's colors."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1)
    svg = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to these, and they repeat
    for color, variable in _CSS_COLORS.items():
        svg = svg.replace(color, variable)
    return re.sub(r"\n\s*", "\n", svg)


def _in_words(name: str, values: Sequence[float] | NDArray[np.float64]) -> str:
    return (
        f"{name} from {values[0]:.4g} to {values[-1]:.4g}, "
        f"lowest {min(values):.4g}, highest {max(values):.4g}"
    )
