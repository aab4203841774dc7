"""Each row of an evaluation is measured of its own video, whatever process does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepstab.config import Params
from deepstab.data.manifest import Manifest
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME
from deepstab.evaluation.corrections import Inputs
from deepstab.evaluation.measure import Measured, measure_videos, true_residual
from deepstab.evaluation.results import ROWS, mean_measures
from deepstab.models.checkpoints import Checkpoint
from tests.unit.evaluation.test_corrections import inputs_of


@pytest.fixture(scope="module")
def inputs(
    untrained: Checkpoint,
    tiny_raw: Path,
    tiny_index: ShardIndex,
    tmp_path_factory: pytest.TempPathFactory,
) -> Inputs:
    return inputs_of(untrained, tiny_raw, tiny_index, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def two_copies(inputs: Inputs, tiny_raw: Path, tiny_params: Params) -> list[Measured]:
    """The same test video, measured twice in two processes."""
    (pair,) = Manifest.load(tiny_raw / MANIFEST_NAME).of_split("test")
    pairs = [pair, replace(pair, name="copy")]
    return measure_videos(pairs, inputs, tiny_params.evaluate)


def test_figures_do_not_depend_on_the_process(two_copies: list[Measured]) -> None:
    first, second = (one.result for one in two_copies)
    assert second.name == "copy"
    assert first.measures == second.measures
    for row in ROWS:
        assert np.array_equal(first.thetas[row], second.thetas[row])
        assert np.array_equal(first.paths[row].shift_px, second.paths[row].shift_px)


def test_every_row_is_better_than_the_input(two_copies: list[Measured]) -> None:
    result = two_copies[0].result
    for row in ROWS[1:]:
        for name in ("jitter_px", "true_jitter_px"):
            assert result.measures[name][row] < 0.3 * result.measures[name]["input"], (name, row)
        for name in ("psnr", "cropped_ssim"):
            assert result.measures[name][row] > result.measures[name]["input"], (name, row)
    assert all(set(values) == set(ROWS) for values in result.measures.values())
    jitter = result.measures["jitter_px"]
    assert mean_measures([result])["jitter_ratio"] == {
        row: pytest.approx(jitter[row] / jitter["input"]) for row in ROWS
    }


def test_the_networks_zoom_is_a_crop_and_no_error(two_copies: list[Measured]) -> None:
    measures, thetas = two_copies[0].result.measures, two_copies[0].result.thetas
    side = np.sqrt(np.linalg.det(thetas["stabilized"][:, :, :2])).mean()
    assert side < 0.99
    assert measures["crop"]["stabilized"] == pytest.approx(side, abs=0.01)
    assert measures["crop"]["baseline"] > measures["crop"]["stabilized"]
    # A corner lies 385 px from the center, and the zoom alone would move it by its share of that.
    assert measures["true_error_px"]["stabilized"] < 0.5 * 385 * (1 - side)


def test_the_middle_frames_are_as_filmed_stabilized_and_stable(two_copies: list[Measured]) -> None:
    unstable, stabilized, stable = two_copies[0].frames
    assert unstable.shape == stabilized.shape == stable.shape == (128, 192, 3)
    assert not np.array_equal(unstable, stabilized)


def test_the_true_correction_leaves_nothing_and_a_shift_its_length() -> None:
    true = torch.eye(2, 3, dtype=torch.float64).repeat(5, 1, 1)
    true[2, 0, 2] = 0.1
    still = np.broadcast_to(np.eye(2, 3), (5, 2, 3))
    left = true_residual({"none": still, "right": true.numpy()}, true, aspect=1.6)
    assert left["true_error_px"]["right"] == pytest.approx(0, abs=1e-9)
    # One frame of five is 0.1 of half of 640 px off; second differences 1, -2, 1 of it.
    assert left["true_error_px"]["none"] == pytest.approx(32 / np.sqrt(5))
    assert left["true_jitter_px"]["none"] == pytest.approx(32 * np.sqrt(6 / 3))
