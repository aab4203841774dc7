"""Which edits throw a resumable training away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deepstab.config import Params
from deepstab.data.shards import ShardIndex
from deepstab.training.fingerprint import fingerprint
from tests.conftest import ROOT

KEPT = (
    "src/deepstab/cli/videos.py",
    "src/deepstab/evaluation/page.py",
    "src/deepstab/experiments/rerun.py",
    "src/deepstab/tracking/store.py",
    "src/deepstab/data/kaggle.py",
    "stages/evaluate.py",
)
THROWN_AWAY = (
    "src/deepstab/models/generator.py",
    "src/deepstab/training/losses.py",
    "src/deepstab/data/clips.py",
    "src/deepstab/geometry.py",
    "stages/train.py",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("src", "stages"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def of(project: Path, params: Params, index: ShardIndex) -> str:
    return fingerprint(params, index, package=project / "src" / "deepstab")


@pytest.mark.parametrize("edited", KEPT + THROWN_AWAY)
def test_an_edit_counts_where_the_train_stage_depends_on_it(
    project: Path, tiny_params: Params, tiny_index: ShardIndex, edited: str
) -> None:
    before = of(project, tiny_params, tiny_index)
    with (project / edited).open("a") as file:
        file.write("# edited\n")
    assert (of(project, tiny_params, tiny_index) == before) == (edited in KEPT)


def test_without_a_pipeline_the_wings_that_train_count(
    project: Path, tiny_params: Params, tiny_index: ShardIndex
) -> None:
    (project / "dvc.yaml").unlink()
    before = of(project, tiny_params, tiny_index)
    for edited, kept in (("cli/videos.py", True), ("models/generator.py", False)):
        with (project / "src/deepstab" / edited).open("a") as file:
            file.write("# edited\n")
        assert (of(project, tiny_params, tiny_index) == before) == kept


def test_parameters_count(project: Path, tiny_params: Params, tiny_index: ShardIndex) -> None:
    other = tiny_params.model_copy(update={"seed": tiny_params.seed + 1})
    assert of(project, other, tiny_index) != of(project, tiny_params, tiny_index)
