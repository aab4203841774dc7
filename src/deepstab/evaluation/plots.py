"""Curves and camera paths, as PNG files for MLflow and DVC and as SVG for the page.

Both are drawn by matplotlib, the same bytes for the same figures.
"""

from __future__ import annotations

import io
import math
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
"""One row per epoch, as in reports/history.csv; NaN where an epoch has no such figure."""

_LOSSES = ("total", "motion", "gan", "pixel", "vgg", "smooth", "identity", "discriminator")
_VALIDATION = {
    "psnr": MEASURES["psnr"].title,
    "cropped_ssim": MEASURES["cropped_ssim"].title,
    "motion_error": "motion error, px @640",
    "discriminator_accuracy": "discriminator accuracy",
}
# Likeness has no zero to start from: at least so much is shown, lest noise look like a trend.
_LEAST_SPAN = {"psnr": 1.0, "cropped_ssim": 0.05}
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
        _chart(title, {row: signals[row][title][:num_frames] for row in ROWS}, "frame")
        for title in signals["input"]
    ]


def learning_charts(history: History) -> list[Chart]:
    """Validation figures and training losses per epoch; losses that are switched off are not."""
    titles = {f"validation {title}": name for name, title in _VALIDATION.items()}
    titles |= {f"training loss: {name}": name for name in _LOSSES}
    curves = {title: _curve(history, name) for title, name in titles.items()}
    return [
        _chart(
            title, {"stabilized": values}, "epoch", epochs, limits=_limits(titles[title], values)
        )
        for title, (epochs, values) in curves.items()
        if any(values)
    ]


def loss_curves(history: History) -> Figure:
    """Mean training terms per epoch, and the validation figures that there are."""
    validation = {name: _curve(history, name) for name in _VALIDATION}
    validation = {name: curve for name, curve in validation.items() if any(curve[1])}
    figure = Figure(figsize=(4.4 * (1 + len(validation)), 3.6), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(validation), squeeze=False)[0]
    for name in _LOSSES:
        epochs, values = _curve(history, name)
        if any(values):
            left.plot(epochs, values, marker=".", label=name)
    left.set(title="training loss, unweighted terms", xlabel="epoch", yscale="log")
    left.legend(fontsize="small", ncols=2)
    for axes, (name, curve) in zip(others, validation.items(), strict=True):
        axes.plot(*curve, marker=".")
        axes.set(title=f"validation {_VALIDATION[name]}", xlabel="epoch")
        axes.set_ylim(*_limits(name, curve[1]))
    return figure


def camera_paths(video: VideoResult) -> Figure:
    """The camera path of one video in every row, as measured on its frames."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    signals = {row: _signals(path) for row, path in video.paths.items()}
    panels = figure.subplots(1, len(signals["input"]))
    for axes, title in zip(panels, signals["input"], strict=True):
        _draw(axes, {row: signals[row][title] for row in ROWS})
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


def _curve(history: History, name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one column, as far as it has any."""
    rows = [row for row in history if not math.isnan(row.get(name, math.nan))]
    return [row["epoch"] for row in rows], [row[name] for row in rows]


def _limits(name: str, values: Sequence[float]) -> tuple[float, float]:
    """The ends of a learning curve's axis, which starts from zero where that is a bound."""
    lowest, highest = min(values), max(values)
    if name in _LEAST_SPAN:
        margin = max(_LEAST_SPAN[name] - (highest - lowest), 0.1 * (highest - lowest)) / 2
        return lowest - margin, highest + margin
    return min(0.0, lowest), 1.1 * max(highest, 0.0) or 1.0


def _draw(axes: Axes, series: Series, positions: Sequence[float] | None = None) -> None:
    for row, values in series.items():
        axes.plot(
            range(len(values)) if positions is None else positions,
            values,
            label=row,
            color=_COLORS[row],
            linestyle=_DASHES[row],
            linewidth=1.2,
            marker="." if len(values) <= _MAX_MARKERS else None,
        )


def _chart(
    title: str,
    series: Series,
    x_title: str,
    positions: Sequence[float] | None = None,
    *,
    limits: tuple[float, float] | None = None,
) -> Chart:
    # The salt names the shapes inside the SVG: charts on one page must not share them.
    salt = f"{title}{sorted(series.items(), key=str)}"
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=_CHART_SIZE, layout="constrained")
        axes = figure.subplots()
        _draw(axes, series, positions)
        axes.set_xlabel(x_title)
        if limits is not None:
            axes.set_ylim(*limits)
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
