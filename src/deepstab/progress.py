"""One progress bar on a terminal; plain lines, a few per minute, anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_PLAIN_INTERVAL_S = 10.0


class Progress:
    """Counts units of work and shows the rate, the time left and live figures."""

    def __init__(self, total: int | None, *, label: str, unit: str, shown: bool = True) -> None:
        """Show a bar, without time left where the total is None, not known."""
        self._shown = shown
        self._label, self._unit, self._total = label, unit, total
        self._done, self._started = 0, time.monotonic()
        self._last_line = self._started
        self._figures = ""
        self._bar = (
            tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True)
            if shown and sys.stderr.isatty()
            else None
        )

    def advance(self, count: int = 1, **figures: float) -> None:
        """Report `count` more units done, with figures such as losses to show beside them."""
        self._done += count
        if figures:
            self._figures = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= _PLAIN_INTERVAL_S:
            self._print_line()

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._print_line()

    def _print_line(self) -> None:
        if not self._shown:
            return
        self._last_line = time.monotonic()
        rate = self._done / max(self._last_line - self._started, 1e-9)
        of_total, time_left = "", ""
        if self._total is not None:
            left_s = max(self._total - self._done, 0) / rate if rate else 0.0
            of_total, time_left = f"/{self._total}", f", {left_s:.0f} s left"
        print(
            f"{self._label}: {self._done}{of_total} {self._unit}, "
            f"{rate:.3g} {self._unit}/s{time_left} {self._figures}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def progress(total: int | None, *, label: str, unit: str, shown: bool = True) -> Iterator[Progress]:
    """A `Progress` that is closed at the end, whatever happens."""
    bar = Progress(total, label=label, unit=unit, shown=shown)
    try:
        yield bar
    finally:
        bar.close()
