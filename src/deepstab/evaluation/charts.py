"""Line charts as coordinates for inline SVG, which follows the page's colors and any width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The picture, and where the curves lie in it.
WIDTH, HEIGHT = 320, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 310, 8, 158
_NUM_TICKS = 4
_MAX_MARKERS = 20  # more would hide the line


@dataclass(frozen=True)
class Tick:
    """A labeled place on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class Line:
    """A drawn series: `name` is its CSS class and legend, `points` what a polyline takes."""

    name: str
    points: str
    markers: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A chart; `description` says in words what it shows."""

    title: str
    description: str
    lines: tuple[Line, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    x_title: str


def line_chart(
    title: str, series: Mapping[str, Sequence[float]], *, first_x: int, x_title: str
) -> Chart:
    """Lay out series of finite values at x = first_x, first_x + 1, ...

    Args:
        title: with the unit.
        series: name -> values, all of one length, at least one.
        first_x: of the first value.
        x_title: what x counts.
    """
    values = [value for line in series.values() for value in line]
    ticks = _ticks(min(values), max(values))
    low, high = min(*values, *ticks), max(*values, *ticks)
    num = len(next(iter(series.values())))

    def x_of(item: int) -> float:
        return round(LEFT + (RIGHT - LEFT) * (item / (num - 1) if num > 1 else 0.5), 1)

    def y_of(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)

    lines = []
    for name, line in series.items():
        points = tuple((x_of(item), y_of(value)) for item, value in enumerate(line))
        markers = points if num <= _MAX_MARKERS else ()
        lines.append(Line(name, " ".join(f"{x},{y}" for x, y in points), markers))
    marked = sorted({0, num - 1})
    return Chart(
        title=title,
        description=f"{title}: " + "; ".join(_in_words(name, series[name]) for name in series),
        lines=tuple(lines),
        y_ticks=tuple(Tick(y_of(tick), f"{tick:.6g}") for tick in ticks),
        x_ticks=tuple(Tick(x_of(item), str(first_x + item)) for item in marked),
        x_title=x_title,
    )


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers that reach from below `low` to above `high`."""
    span = (high - low) or abs(high) or 1.0
    rough = span / (_NUM_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _in_words(name: str, values: Sequence[float]) -> str:
    return (
        f"{name} from {values[0]:.4g} to {values[-1]:.4g}, "
        f"lowest {min(values):.4g}, highest {max(values):.4g}"
    )
