"""Track jitter of the learning benchmark: by hand, and one small clip through it."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.learning.contest import Contest, bootstrap_interval, interval_lines, networks
from benchmarks.learning.tracks import Figures, measure_clip, report

from deepstab.errors import CheckpointError, DataError
from deepstab.metrics.track import TrackJitter
from deepstab.models.checkpoints import Checkpoint, export_weights, load_weights
from deepstab.stabilization.whole_video import Crop
from deepstab.video.writer import write_video
from tests.conftest import with_values

AUTO = Crop("auto", 0.2)


def jitter(px: float) -> TrackJitter:
    return TrackJitter(px, px / 2, px / 4, px / 8, num_frames=30, num_left_out=1)


def figures(clip: str, *, untrained: tuple[float, float], trained: tuple[float, float]) -> Figures:
    """Of an input of 8 px, two untrained and two trained networks, the same by both trackers."""
    names = ("input", "untrained 0", "untrained 1", "one", "two")
    by_name = dict(zip(names, map(jitter, (8.0, *untrained, *trained)), strict=True))
    zoom = dict.fromkeys(names[1:], 0.9)
    return Figures(clip, {"lucas-kanade": by_name, "dis": dict(by_name)}, zoom)


def test_the_last_line_is_the_mean_ratio_over_clips_seeds_and_weights() -> None:
    clips = [
        # Untrained sqrt(1 * 4) = 2; trained 1/2 and 1/2 of it.
        figures("a.mp4", untrained=(1.0, 4.0), trained=(1.0, 1.0)),
        # Untrained 2; trained 1/2 and 2 of it.
        figures("b.mp4", untrained=(2.0, 2.0), trained=(1.0, 4.0)),
    ]
    lines = report(clips, ["one", "two"]).splitlines()
    # (1/2 * 1/2 * 1/2 * 2) to the power of 1/4
    assert lines[-1] == f"trained/untrained {0.5**0.5:.3f}"
    assert "both trackers, one" in lines[-4]
    assert lines[-4].split()[-5:] == ["0.500", "[0.500,", "0.500]", "excludes", "1"]
    assert "both trackers, two" in lines[-3]
    assert lines[-3].split()[-5] == "1.000"
    of_a = next(line for line in lines if line.startswith("a.mp4"))
    assert of_a.split()[1:] == ["8.000", "2.000", "1.000", "1.000", "0.500", "0.500", "0.500"]
    beyond = next(line for line in lines if line.startswith("beyond similarity"))
    assert beyond.split()[-4:] == ["1.000", "0.250", "0.125", "0.250"]


def test_the_trackers_count_alike() -> None:
    found = figures("a.mp4", untrained=(2.0, 2.0), trained=(2.0, 2.0))
    found.jitter["dis"]["one"] = jitter(0.5)
    assert report([found], ["one"]).endswith("trained/untrained 0.500")


def test_the_interval_of_clips_that_agree_is_their_ratio() -> None:
    assert bootstrap_interval(np.full(5, math.log(0.8))) == pytest.approx((0.8, 0.8))


def test_the_interval_of_several_seeds_is_that_of_their_mean_in_each_clip() -> None:
    # One seed is lost on the clip on which the other one wins: their mean is the same everywhere.
    logs = np.log([[0.25, 1.0, 0.25], [1.0, 0.25, 1.0]])
    first, _, mean = interval_lines("jitter", logs, ["one", "two"])
    assert first.split()[-5:] == ["0.397", "[0.250,", "1.000]", "includes", "1"]
    assert mean.startswith("jitter, mean of 2")
    assert mean.split()[-5:] == ["0.500", "[0.500,", "0.500]", "excludes", "1"]


def test_the_interval_is_that_of_a_mean() -> None:
    logs = np.random.default_rng(1).normal(math.log(0.9), 0.2, 200)
    low, high = np.log(bootstrap_interval(logs))
    half = 1.96 * logs.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((logs.mean() - half, logs.mean() + half), abs=0.1 * half)


@pytest.fixture
def clip(tiny_raw: Path) -> Path:
    return sorted((tiny_raw / "unstable").glob("*"))[0]


def test_weights_that_are_untrained_equal_the_untrained_network(
    clip: Path, untrained_weights: Path, changed_weights: Path
) -> None:
    weights = {"same": str(untrained_weights), "other": str(changed_weights)}
    found = measure_clip(clip.parent, Contest(weights, num_seeds=1, crop=AUTO), Path(clip.name))
    for by_name in found.jitter.values():
        assert by_name["same"] == by_name["untrained 0"]
        assert by_name["other"] != by_name["untrained 0"]
        assert by_name["same"].jitter_px < 0.7 * by_name["input"].jitter_px
    assert found.zoom["same"] == found.zoom["untrained 0"] < 1


def test_seeds_give_networks_that_differ_and_come_back(untrained_weights: Path) -> None:
    contest = Contest({"tiny": str(untrained_weights)}, num_seeds=2, crop=AUTO)
    (first, params), (again, _) = networks(contest), networks(contest)
    assert [*first] == ["untrained 0", "untrained 1", "tiny"]
    assert params == load_weights(str(untrained_weights)).params
    one, other = (next(first[f"untrained {seed}"].parameters()) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(one, next(again["untrained 0"].parameters()))


def test_weights_of_another_network_are_refused(
    untrained: Checkpoint, untrained_weights: Path, tmp_path: Path
) -> None:
    of_other_flow = with_values(untrained.made_with, {"flow.winsize": 9})
    export_weights(replace(untrained, made_with=of_other_flow), tmp_path / "other.safetensors")
    weights = {"tiny": str(untrained_weights), "other": str(tmp_path / "other.safetensors")}
    with pytest.raises(CheckpointError, match="other are of another network or flow than tiny"):
        networks(Contest(weights, num_seeds=1, crop=AUTO))


def test_a_clip_that_cannot_be_followed_is_named(untrained_weights: Path, tmp_path: Path) -> None:
    flat = [np.full((64, 96, 3), 90, np.uint8)] * 40
    write_video(tmp_path / "flat.mp4", flat, frame_rate=Fraction(30), crf=18, preset="ultrafast")
    contest = Contest({"tiny": str(untrained_weights)}, num_seeds=1, crop=AUTO)
    with pytest.raises(DataError, match=r"flat\.mp4: track jitter nan"):
        measure_clip(tmp_path, contest, Path("flat.mp4"))
