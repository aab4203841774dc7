"""The benchmarks of speed and scale: small real files through them."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from benchmarks.throughput.rows import Row, as_text
from benchmarks.throughput.stages import measure_stages
from benchmarks.throughput.videos import run

from benchmarks import scale
from deepstab.config import Params
from deepstab.video.writer import write_video


def test_the_table_has_each_measure_beside_its_limit() -> None:
    text = as_text([Row("stage", "90 frames/s", "limit", "100", 0.9), Row("memory", "5 MiB")])
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()][2:] == [
        ["stage", "90 frames/s", "limit", "100", "0.90"],
        ["memory", "5 MiB", "", "", ""],
    ]


def test_stages_are_measured_on_videos(tmp_path: Path, tiny_params: Params) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), np.uint8)
    write_video(tmp_path / "a.mp4", iter(frames), frame_rate=Fraction(30), crf=18)
    rows = list(measure_stages([tmp_path / "a.mp4"], tmp_path, tiny_params.flow, repeats=2))
    assert [row.name.split()[0] for row in rows] == ["flow", "clip", "flow", "clip"]
    assert [row.name.split()[-1] for row in rows] == ["none", "none", "zstd", "zstd"]
    assert min(row.ratio or 0 for row in rows) > 0


def test_scale_is_measured_on_entries_and_on_a_video(
    tiny_params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    scale.measure_entries(50, tiny_params.data.split, tiny_params.flow)
    scale.measure_flow(tiny_params.flow, 12)
    entries, flow = capsys.readouterr().out.splitlines()
    assert len(re.findall(r"[\d.]+", entries)) == 11
    assert "(12 frames)" in flow


def test_the_peak_of_a_command_is_its_own() -> None:
    ballast = np.ones(2**26)  # 512 MiB
    assert 5 < run(sys.executable, "-c", "pass").peak_mib < 100
    peak_mib = run(sys.executable, "-c", f"b'x' * {200 * 2**20}").peak_mib
    assert 200 < peak_mib < 300
    with pytest.raises(RuntimeError, match="no such thing"):
        run(sys.executable, "-c", "raise SystemExit('no such thing')")
    del ballast
