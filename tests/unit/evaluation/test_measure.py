"""Each row of an evaluation is measured of its own video."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepstab.config import Params
from deepstab.data.manifest import Manifest
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME
from deepstab.evaluation.measure import ROWS, PairResult, evaluate_pair, mean_measures
from deepstab.models.generator import StabGenerator


@pytest.fixture(scope="module")
def unchanged(tiny_raw: Path, tiny_index: ShardIndex, tiny_params: Params) -> PairResult:
    """A test video and a network that does nothing: the plain regressor as initialized."""
    (pair,) = Manifest.load(tiny_raw / MANIFEST_NAME).of_split("test")
    (entry,) = tiny_index.of_split("test")
    model = tiny_params.model.model_copy(update={"head": "fc"})
    return evaluate_pair(
        *(StabGenerator(model).eval(), pair, entry, tiny_index),
        raw=tiny_raw,
        clip_length=model.clip_length,
        params=tiny_params.evaluate,
    )


def test_a_network_that_does_nothing_has_the_inputs_figures(unchanged: PairResult) -> None:
    for name, values in unchanged.measures.items():
        assert set(values) == set(ROWS)
        assert values["stabilized"] == pytest.approx(values["input"], rel=1e-3), name


def test_the_baseline_is_measured_beside_it(unchanged: PairResult) -> None:
    jitter, psnr = unchanged.measures["jitter_px"], unchanged.measures["psnr"]
    true = unchanged.measures["true_jitter_px"]
    assert jitter["baseline"] < 0.2 * jitter["input"]
    assert true["baseline"] < 0.2 * true["input"]
    assert psnr["baseline"] > psnr["input"] + 1
    assert mean_measures([unchanged])["jitter_ratio"] == {
        row: pytest.approx(jitter[row] / jitter["input"]) for row in ROWS
    }
