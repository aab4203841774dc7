"""What is saved is loaded again to the last digit; means and order are as worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from deepstab.errors import DataError
from deepstab.evaluation.results import (
    ROWS,
    Evaluation,
    VideoResult,
    mean_measures,
    per_video_csv,
    worst_first,
)
from deepstab.metrics.stability import CameraPath


def video(name: str, **jitter_px: float) -> VideoResult:
    """A result whose rows have a jitter of 1 px where none is named."""
    jitter = {row: jitter_px.get(row, 1.0) for row in ROWS}
    time = np.arange(20.0)
    path = CameraPath(shift_px=np.stack([time, -time], 1), angle_rad=time / 7, log_scale=0 * time)
    return VideoResult(
        name=name,
        num_frames=20,
        width=12,
        height=8,
        measures={
            **{
                name: dict.fromkeys(ROWS, 0.5) | {"input": 1.0}
                for name in ("psnr", "cropped_ssim", "stability", "crop", "distortion")
            },
            "jitter_px": jitter,
        },
        paths=dict.fromkeys(ROWS, path),
        thetas=dict.fromkeys(ROWS, np.full((20, 2, 3), 1 / 3)),
    )


def evaluation(*videos: VideoResult) -> Evaluation:
    facts = {"mlflow.source.git.commit": "c0ffee" * 6, "mlflow.source.git.dirty": "true"}
    return Evaluation("1234567890abcdef", "1234567890abcdef", 2, facts, videos)


def test_saved_and_loaded_to_the_last_digit(tmp_path: Path) -> None:
    before = evaluation(video("a/b", stabilized=math.nan), video("c", input=1 / 3))
    before.save(tmp_path / "measures.json")
    after = Evaluation.load(tmp_path / "measures.json")
    assert (after.run_id, after.epoch, after.facts) == (before.run_id, 2, before.facts)
    assert [one.name for one in after.videos] == ["a/b", "c"]
    assert after.videos[1].measures == before.videos[1].measures
    assert math.isnan(after.videos[0].measures["jitter_px"]["stabilized"])
    for row in ROWS:
        path, expected = after.videos[0].paths[row], before.videos[0].paths[row]
        assert np.array_equal(path.shift_px, expected.shift_px)
        assert np.array_equal(path.angle_rad, expected.angle_rad)
        assert np.array_equal(after.videos[0].thetas[row], before.videos[0].thetas[row])


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    path = tmp_path / "measures.json"
    with pytest.raises(DataError, match=r"no measures; run the evaluate stage first"):
        Evaluation.load(path)
    evaluation(video("a")).save(path)
    tree = json.loads(path.read_text())
    for damaged in (path.read_text()[:100], "[]", json.dumps({**tree, "videos": [{}]})):
        path.write_text(damaged)
        with pytest.raises(DataError, match=r"damaged measures .* run evaluate again"):
            Evaluation.load(path)


def test_ratios_of_the_means_and_mean_of_the_ratios() -> None:
    means = mean_measures(
        [video("a", input=1, stabilized=0.5), video("b", input=9, stabilized=0.5 / 9)]
    )
    assert means["jitter_px"]["input"] == 5
    assert means["jitter_ratio"]["stabilized"] == pytest.approx((0.5 + 0.5 / 9) / 10)
    # 1/2 and 1/162: the root of 1/324.
    assert means["jitter_ratio_geomean"]["stabilized"] == pytest.approx(1 / 18)
    assert means["jitter_ratio_geomean"]["input"] == 1


def test_the_worst_comes_first_and_the_unmeasured_before_it() -> None:
    videos = [video("a", stabilized=0.1), video("b", stabilized=3), video("c", stabilized=math.nan)]
    assert [one.name for one in worst_first(videos)] == ["c", "b", "a"]


def test_every_measure_of_every_row_has_its_column() -> None:
    header, line = per_video_csv([video("a,b", baseline=0.25)]).splitlines()
    values = dict(zip(header.split(",")[2:], line.split(",")[3:], strict=True))
    assert line.startswith('"a,b",20,')
    assert len(values) == 6 * len(ROWS)
    assert values["jitter_px_baseline"] == "0.25"
