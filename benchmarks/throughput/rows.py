"""What a table of throughput is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_HEADINGS = ("measure", "found", "limit", "is", "ratio")


@dataclass(frozen=True)
class Row:
    """One figure, and the limit or peer that was measured in the same run.

    Attributes:
        name: of the measure.
        found: with its unit.
        limit: name of what it is compared with, empty where there is none.
        limit_found: of that, with its unit.
        ratio: of the two, as the row is to be read.
    """

    name: str
    found: str
    limit: str = ""
    limit_found: str = ""
    ratio: float | None = None


def as_text(rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [_HEADINGS, tuple("-" * len(heading) for heading in _HEADINGS)]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append((row.name, row.found, row.limit, row.limit_found, ratio))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )
