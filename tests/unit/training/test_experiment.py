"""Trainings that are killed and run again, in a real SQLite store."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepstab.data.shards import ShardIndex
from deepstab.experiments.records import Records
from deepstab.models import checkpoints
from deepstab.tracking import names
from tests.conftest import with_values

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

NUM_EPOCHS, STEPS = 6, 6  # steps per epoch
TRAIN = """
import sys
from pathlib import Path
from deepstab.errors import run_stage
from deepstab.training.experiment import run_experiment
params, raw, shards = map(Path, sys.argv[1:])
here = Path.cwd()
run_stage(lambda: run_experiment(
    params, raw=raw, shards=shards, destination=here / "checkpoints", root=here
))
"""


@dataclass
class Project:
    """A folder to train in."""

    root: Path
    arguments: list[str]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", TRAIN, *self.arguments],
            cwd=self.root,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self) -> str:
        process = self.start()
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def train_and_kill(self, *, after_epochs: int) -> None:
        """Kill a training a few steps after it kept its state so many times."""
        process, seen = self.start(), set()
        give_up = time.monotonic() + 200
        while len(seen) < after_epochs:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            for state in (self.root / ".scratch/train").glob("*/state.pth"):
                seen.add(state.stat().st_ino)
            time.sleep(0.005)
        time.sleep(0.1)
        process.kill()
        process.communicate()

    def runs(self) -> list[Any]:
        found = Records(self.root).client.search_runs(["1"], order_by=["attributes.start_time"])
        return list(found)

    def points(self, run_id: str, name: str) -> list[tuple[int, float]]:
        history = Records(self.root).client.get_metric_history(run_id, name)
        return sorted((point.step, point.value) for point in history)

    def best(self) -> checkpoints.Checkpoint:
        return checkpoints.load(self.root / names.BEST_FILE)

    def stored(self, run_id: str) -> Path:
        return self.root / "mlruns" / "1" / run_id / "artifacts"


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MLFLOW_TRACKING_URI",
        "DEEPSTAB_TRACKING",
        "DVC_ROOT",
        "DVC_STAGE",
        "DVC_EXP_NAME",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(
    tmp_path: Path, tiny_tree: dict[str, Any], tiny_raw: Path, tiny_index: ShardIndex
) -> Project:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(with_values(tiny_tree, {"train.epochs": NUM_EPOCHS})))
    return Project(tmp_path, [str(params), str(tiny_raw), str(tiny_index.folder)])


def assert_whole(project: Project, run: Any) -> None:
    """A run that says all, and which the checkpoints name."""
    assert run.info.status == "FINISHED"
    best, final = (
        checkpoints.load(project.stored(run.info.run_id) / file)
        for file in (names.BEST_FILE, names.FINAL_FILE)
    )
    assert best.run_id == final.run_id == project.best().run_id == run.info.run_id
    assert run.data.tags[names.GENERATOR_TAG] == best.generator_sha256()
    assert run.data.tags[names.FINAL_GENERATOR_TAG] == final.generator_sha256()
    assert run.data.metrics["best/epoch"] == best.epoch
    assert len(run.inputs.dataset_inputs) == 2
    assert (project.stored(run.info.run_id) / names.PARAMS_FILE).is_file()
    assert [step for step, _ in project.points(run.info.run_id, "motion_error")] == [
        STEPS * epoch for epoch in range(NUM_EPOCHS + 1)
    ]


def test_a_training_killed_twice_is_one_run_with_every_figure_once(project: Project) -> None:
    began = time.monotonic()
    project.train_and_kill(after_epochs=2)
    (killed,) = project.runs()
    project.train_and_kill(after_epochs=2)
    assert [run.info.status for run in project.runs()] == ["RUNNING"]
    assert "resuming after epoch" in project.train()
    took_s = time.monotonic() - began
    (run,) = project.runs()
    assert run.info.run_id == killed.info.run_id
    assert_whole(project, run)
    for name in run.data.metrics:
        steps = Counter(step for step, _ in project.points(run.info.run_id, name))
        assert set(steps.values()) == {1}, name
    losses = project.points(run.info.run_id, "step/total")
    assert [step for step, _ in losses] == list(range(STEPS * NUM_EPOCHS))
    assert not list((project.root / ".scratch/train").iterdir())
    assert not list((project.root / ".scratch/outbox").iterdir())

    began = time.monotonic()
    project.train()
    assert run.data.metrics["duration_s/train"] < took_s
    whole = project.runs()[-1]
    assert whole.info.run_id != run.info.run_id
    assert project.points(whole.info.run_id, "step/total") == losses
    for tag in (names.GENERATOR_TAG, names.FINAL_GENERATOR_TAG):
        assert whole.data.tags[tag] == run.data.tags[tag]


@pytest.mark.parametrize("gone", ["deleted", "with other parameters"])
def test_where_the_run_is_gone_a_new_one_has_it_all(project: Project, gone: str) -> None:
    project.train_and_kill(after_epochs=2)
    (killed,) = project.runs()
    if gone == "deleted":
        Records(project.root).client.delete_run(killed.info.run_id)
    else:
        params = Path(project.arguments[0])
        tree = yaml.safe_load(params.read_text())
        params.write_text(yaml.safe_dump(with_values(tree, {"registry.name": "another"})))
    said = project.train()
    assert f"run {killed.info.run_id} cannot continue" in said
    assert "resuming after epoch" in said
    new = project.runs()[-1]
    assert new.info.run_id != killed.info.run_id
    assert_whole(project, new)
    steps = {step for step, _ in project.points(new.info.run_id, "step/total")}
    assert steps >= {STEPS - 1, 2 * STEPS - 1, *range(4 * STEPS, NUM_EPOCHS * STEPS)}


def test_damage_and_litter_of_a_killed_training_do_not_stop_the_next(project: Project) -> None:
    project.train_and_kill(after_epochs=1)
    (state,) = (project.root / ".scratch/train").glob("*/state.pth")
    state.write_bytes(state.read_bytes()[:-1])
    begun = [folder / ".deepstab-1.part" for folder in (state.parent, project.root / "checkpoints")]
    for partial in begun:
        partial.touch()
    said = project.train()
    assert not any(partial.exists() for partial in begun)
    assert said.count(f"{state} is damaged and was deleted: training starts anew") == 1
    assert "resuming" not in said
    (run,) = project.runs()
    assert_whole(project, run)


def test_a_training_that_dvc_has_not_entered_in_its_lock_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    project.train()
    made = (project.root / names.BEST_FILE).read_bytes()
    (project.root / names.BEST_FILE).unlink()  # as DVC does before it runs a stage
    assert "has not its result: it goes on" in project.train()
    assert (project.root / names.BEST_FILE).read_bytes() == made
    (run,) = project.runs()
    assert_whole(project, run)

    output = {"path": names.BEST_FILE, "md5": hashlib.md5(made).hexdigest()}
    lock = {"stages": {"train": {"outs": [output]}}}
    (project.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    said = project.train()
    assert "resuming" not in said
    assert "goes on" not in said
    assert len(project.runs()) == 2
    assert_whole(project, project.runs()[-1])


def test_a_training_killed_before_its_first_epoch_is_one_run(project: Project) -> None:
    process = project.start()
    give_up = time.monotonic() + 200
    while not list((project.root / ".scratch/outbox").glob("*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert "resuming" not in project.train()
    (run,) = project.runs()
    assert_whole(project, run)
