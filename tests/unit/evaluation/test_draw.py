"""A report is drawn from files alone, without the networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deepstab.config import Params, flatten
from deepstab.data.manifest import Manifest, VideoFile, VideoPair
from deepstab.evaluation.draw import draw_report
from tests.unit.evaluation.test_results import evaluation, video


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """What evaluate and train leave, of one video in a folder."""
    names = "epoch,gan,pixel,vgg,smooth,identity,total,discriminator,psnr,cropped_ssim"
    rows = "0,,,,,,,,30.1,0.8\n1,1,1,0,1,1,1,1,30.5,0.9\n"
    (tmp_path / "history.csv").write_text(f"{names}\n{rows}")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a_b.mp4").write_bytes(b"video")
    return tmp_path


def test_every_file_is_drawn_and_named(reports: Path, tiny_params: Params) -> None:
    file = VideoFile("x.mp4", "0" * 64, 20, 30.0, 12, 8)
    pair = VideoPair("a/b", "a", "test", file, file, 20)
    manifest = Manifest("kaggle", "kaggle", (pair,), ())
    summary, drawn = draw_report(
        evaluation(video("a/b")), manifest, params=flatten(tiny_params), reports=reports
    )
    names = ["loss_curves.png", "plots/path_a_b.png", "report.html"]
    assert drawn == [reports / name for name in names]
    for picture in drawn[:2]:
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert drawn[2].read_text().startswith("<!doctype html>")
    assert (reports / "summary.txt").read_text() == summary
    assert "GENERATED" not in summary


def test_drawing_loads_no_networks() -> None:
    code = "import sys, deepstab.evaluation.draw; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
