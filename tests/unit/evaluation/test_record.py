"""An evaluation leaves all of its files, and the run gets the figures under their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepstab.data.manifest import Manifest
from deepstab.data.sources import MANIFEST_NAME
from deepstab.evaluation.measure import Measured
from deepstab.evaluation.record import describe, log_files, write_files
from deepstab.evaluation.results import ROWS, Evaluation
from deepstab.models.checkpoints import Checkpoint
from deepstab.tracking.run import Tracker
from deepstab.video.frames import count_frames
from tests.unit.evaluation.test_results import video


class _Kept(Tracker):
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.artifacts: list[str] = []

    def log_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        self.metrics |= values

    def log_artifact(self, path: Path, folder: str = "") -> None:
        assert path.is_file()
        self.artifacts.append(f"{folder}/{path.name}")


def test_files_and_figures(tiny_raw: Path, untrained: Checkpoint, tmp_path: Path) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    (pair,) = manifest.of_split("test")
    still = dict.fromkeys(ROWS, np.tile(np.eye(2, 3), (20, 1, 1)))
    result = replace(video(pair.name, input=4.0, stabilized=0.5), thetas=still)
    frame = np.zeros((90, 160, 3), np.uint8)
    measured = [Measured(result, (frame, frame, frame))]
    checkpoint = replace(untrained, run_id="f00d", epoch=3)
    evaluation = describe(measured, checkpoint, run_id="beef")
    assert (evaluation.run_id, evaluation.trained_in, evaluation.epoch) == ("beef", "f00d", 3)
    assert "python" in evaluation.facts

    write_files(measured, evaluation, manifest, raw=tiny_raw, reports=tmp_path)
    assert Evaluation.load(tmp_path / "measures.json").videos[0].measures == result.measures
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["run_id"], metrics["jitter_px"]["stabilized"]) == ("beef", 0.5)
    assert json.loads((tmp_path / "scores.json").read_text())["jitter_ratio"] == 0.125
    (player,) = (tmp_path / "videos").iterdir()
    assert count_frames(player) == 20

    kept = _Kept()
    log_files(kept, evaluation, manifest, tmp_path)
    assert kept.metrics["test/stabilized/jitter_ratio"] == 0.125
    assert kept.metrics["test/untrained/jitter_px"] == 1.0
    assert "test/baseline/jitter_ratio" not in kept.metrics
    assert kept.artifacts == [
        "reports/metrics.json",
        "reports/per_video.csv",
        "reports/measures.json",
        "plots/side_by_side.png",
        f"videos/{player.name}",
    ]
