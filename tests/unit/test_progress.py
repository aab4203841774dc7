from __future__ import annotations

import re

import pytest

from deepstab.progress import progress


@pytest.mark.parametrize(
    ("total", "pattern"),
    [
        (4, r"render: 3/4 frames, \S+ frames/s, \d+ s left loss 0\.5\n"),
        (2, r"render: 3/2 frames, \S+ frames/s, 0 s left loss 0\.5\n"),
        (None, r"render: 3 frames, \S+ frames/s loss 0\.5\n"),
    ],
)
def test_away_from_a_terminal_the_last_state_is_a_plain_line(
    total: int | None, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(total, label="render", unit="frames") as bar:
        for _ in range(3):
            bar.advance(loss=0.5)
    assert re.fullmatch(pattern, capsys.readouterr().err)
