"""What the page shows, as HTML."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from deepstab.app import picture
from deepstab.app.job import Made, Step
from deepstab.video.limits import Limits

STILL = np.zeros((3000, 4))
MOVED = np.column_stack([np.linspace(-50, 150, 3000), *STILL.T[1:]])
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("step", "spent_s", "said"),
    [
        (Step("load", 0, None), 1, "Loading…</p>"),
        (Step("analyze", 2, 100), 1, "2 of 100 frames</p>"),
        # Half of this pass and a second as long.
        (Step("analyze", 50, 100), 10, "50 of 100 frames, about 30 s left</p>"),
        (Step("render", 50, 100), 10, "about 10 s left</p>"),
        (Step("score", 25, 100), 40, "about 2 min left</p>"),
        (Step("score", 20, 100), 30.2, "about 2 min 1 s left</p>"),
        # A header that told too few.
        (Step("render", 120, 100), 10, "about 0 s left</p>"),
    ],
)
def test_progress_tells_the_time_left(step: Step, spent_s: float, said: str) -> None:
    assert said in picture.progress(step, spent_s)


def test_plots_span_what_moved_and_no_less_than_can_be_seen() -> None:
    made = Made(Path("a.mp4"), Path("b.mp4"), 0.9, 100.0, (MOVED, STILL), ())
    drawn = picture.paths(made)
    assert re.findall("from (.*?) to (.*?)'", drawn) == [
        ("-50 px", "150 px"),
        ("-2 px", "2 px"),
        ("-0.2°", "0.2°"),
    ]
    assert drawn.count("1 min 40 s</text>") == 3
    for points in re.findall("points='(.*?)'", drawn):
        pairs = [pair.split(",") for pair in points.split()]
        assert len(pairs) == 1200
        assert [float(pairs[0][0]), float(pairs[-1][0])] == [0, 360]
        assert all(18 <= float(y) <= 152 for _, y in pairs)


def test_names_and_messages_are_text() -> None:
    made = Made(Path(f"{HOSTILE}'.mp4"), Path("b?#'.mp4"), 1, 1.0, (MOVED, STILL), (HOSTILE,))
    for shown in (picture.players(made), picture.failure(HOSTILE), picture.note(HOSTILE)):
        assert "<img" not in shown
        assert "&lt;img" in shown
    assert "src='/gradio_api/file=b%3F%23%27.mp4'" in picture.players(made)


def test_the_limits_are_said() -> None:
    limits = Limits(num_bytes=2**30, duration_s=90, num_pixels=17_000_000)
    said = picture.hint(limits)
    assert "At most 1024 MiB, 1 min 30 s, 17 megapixels a frame." in said
    assert "At most" not in picture.hint(Limits())
