"""What a command needs at its edge: errors and warnings as lines, signals, progress, tables."""

from __future__ import annotations

import logging
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from deepstab.errors import one_line
from deepstab.progress import Progress

if TYPE_CHECKING:
    from deepstab.metrics.stability import StabilityScore


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print warnings and expected failures as one line each, without a traceback.

    Raises:
        SystemExit: as `deepstab.errors.one_line`.
    """
    handler = _WarningLines()
    logger = logging.getLogger("deepstab")
    logger.addHandler(handler)
    try:
        with one_line():
            yield
    finally:
        logger.removeHandler(handler)


def exit_when_told() -> None:
    """Let every signal that ends a process end it as an interrupt does, with no half-written file.

    What whoever started it has chosen to ignore (`nohup`, a shell's background) stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


class Phases:
    """One progress bar after another, for the phases that a video goes through."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._phase = ""
        self._bar: Progress | None = None

    def show(self, phase: str, _done: int, total: int | None) -> None:
        """Show one more frame done; a new phase begins with its first frame."""
        _Ending.go_on()
        if phase != self._phase or self._bar is None:
            self.close()
            self._bar = Progress(total, label=f"{self._label} {phase}".lstrip(), unit="frames")
            self._phase = phase
        self._bar.advance()

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()


def score_tree(found: StabilityScore) -> dict[str, Any]:
    """Return plain numbers, with None for what could not be measured."""
    tree: dict[str, Any] = asdict(found)
    for side in ("input", "output"):
        del tree[side]["path"]
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in tree.items()
    }


def score_table(found: StabilityScore) -> str:
    """Return a table of input beside output."""
    from rich.console import Console
    from rich.table import Table

    def row(title: str, attribute: str, factor: float = 1.0) -> None:
        values = [factor * getattr(side, attribute) for side in (found.input, found.output)]
        table.add_row(title, *(f"{value:.4g}" for value in values))

    table = Table("", box=None)
    for heading in ("input", "output"):
        table.add_column(heading, justify="right")
    row("stability, 1 is best", "stability")
    row("jitter, px at width 640", "jitter_px")
    row("roll jitter, degrees", "roll_jitter_deg")
    row("inter-frame PSNR, dB", "interframe_psnr_db")
    row("black border, %", "black_fraction", 100)
    row("frames whose motion was not found", "num_untracked")
    for title, value in (
        ("crop, 1 keeps all", found.crop),
        ("distortion, mean, 1 is none", found.distortion_mean),
        ("distortion, worst frame", found.distortion_worst),
        ("frames not matched", found.num_unmatched),
    ):
        table.add_row(title, "", f"{value:.4g}")
    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


class _WarningLines(logging.Handler):
    """Prints each warning once, above a progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if line not in self._shown:
            self._shown.add(line)
            tqdm.write(f"{record.levelname.lower()}: {line}", file=sys.stderr)


class _Ending:
    """The signal that told the process to end.

    What it raises may be lost where Python ignores exceptions, such as while an object is deleted:
    then the next frame raises it again.
    """

    number: int | None = None

    @classmethod
    def go_on(cls) -> None:
        """Go on, unless the process was told to end."""
        if cls.number == signal.SIGINT:
            raise KeyboardInterrupt
        if cls.number is not None:
            sys.exit(128 + cls.number)


def _end(number: int, _frame: FrameType | None) -> None:
    _Ending.number = number
    _Ending.go_on()
