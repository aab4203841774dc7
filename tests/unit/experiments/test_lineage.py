"""Chains of real runs in a real SQLite store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deepstab.errors import CheckpointError, DeepStabError, TrackingError, VideoError
from deepstab.experiments import lineage
from deepstab.experiments.records import Records
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint, export_weights
from deepstab.tracking import names
from deepstab.tracking.durations import recall_durations, remember_duration
from deepstab.tracking.lockfile import read_lock
from deepstab.tracking.store import attach_run, start_run

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PARAMS = {"seed": 7, "flow.winsize": 15, "evaluate.window_stride": 6}


def later(checkpoint: Checkpoint) -> Checkpoint:
    """The last checkpoint where this one is the best."""
    weights = {name: value * 2 for name, value in checkpoint.generator.items()}
    return dataclasses.replace(checkpoint, generator=weights, epoch=4)


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DEEPSTAB_TRACKING", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def trained(root: Path, untrained: Checkpoint) -> Checkpoint:
    """A checkpoint whose run logged what train and evaluate log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with start_run(
            experiment="tests",
            root=root,
            outbox=root / "outbox",
            tags={
                names.NAME_TAG: "first",
                "data.source": "flights",
                "data.generated": "True",
            },
        ) as run:
            checkpoint = dataclasses.replace(untrained, run_id=run.run_id, epoch=3)
            run.log_params(PARAMS)
            run.log_dataset("x", sha256=64 * "d", source="flights", context="training")
            run.set_tags(
                {
                    "checkpoint.epoch": "3",
                    "checkpoint.generator_sha256": checkpoint.generator_sha256(),
                    "checkpoint.final_generator_sha256": later(checkpoint).generator_sha256(),
                }
            )
            run.log_metrics({"test/stabilized/psnr": 25.123456789, "duration_s/train": 7.0}, step=0)
    return checkpoint


def test_the_chain_of_a_run(root: Path, trained: Checkpoint) -> None:
    records = Records(root)
    chain = lineage.trace(records, records.find("first"))
    assert list(chain) == ["data", "shards", "run", "checkpoint", "metrics"]
    assert chain["data"]["manifest_sha256"] == 64 * "d"
    assert chain["shards"]["flow"] == {"winsize": "15"}
    assert (chain["run"]["id"], chain["run"]["seed"]) == (trained.run_id, "7")
    assert chain["run"]["duration_s"] == {"train": 7.0}
    assert chain["checkpoint"]["generator_sha256"] == trained.generator_sha256()
    assert chain["checkpoint"]["epoch"] == "3"
    assert chain["metrics"] == {"psnr": 25.123456789}
    text = lineage.as_text(chain)
    assert "\n  manifest_sha256        " + 64 * "d" + "\n" in text
    assert text.endswith("metrics\n  psnr                   25.1235")
    assert "None" not in text


def test_an_evaluation_alone_leads_back_to_the_training(root: Path, trained: Checkpoint) -> None:
    with attach_run(
        trained.run_id,
        params={**PARAMS, "evaluate.window_stride": 3},
        experiment="tests",
        root=root,
        outbox=root / "outbox",
    ) as run:
        run.log_metrics({"test/stabilized/psnr": 26.0}, step=0)
    assert run.run_id != trained.run_id
    records = Records(root)
    chain = lineage.trace(records, records.find(run.run_id))
    assert chain["checkpoint"]["trained_in"] == trained.run_id
    assert chain["checkpoint"]["generator_sha256"] == trained.generator_sha256()
    assert chain["data"]["manifest_sha256"] == 64 * "d"
    assert (chain["run"]["id"], chain["metrics"]) == (run.run_id, {"psnr": 26.0})


def test_files_name_their_run_and_differences_show(
    root: Path, trained: Checkpoint, tmp_path: Path
) -> None:
    checkpoints.save(trained.as_tree(), tmp_path / "a.pth")
    checkpoints.save(later(trained).as_tree(), tmp_path / "final.pth")
    export_weights(trained, tmp_path / "a.safetensors")
    metrics = {"run_id": trained.run_id, "data": {}, "psnr": {"input": 1, "stabilized": 25.1235}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    records = Records(root)
    chain = lineage.trace(records, records.find(trained.run_id))
    for name in ("a.pth", "final.pth", "a.safetensors", "metrics.json"):
        assert lineage.is_file(str(tmp_path / name))
        origin = lineage.read_file(tmp_path / name)
        assert origin.run_id == trained.run_id
        assert lineage.contradiction(origin, chain) is None

    other = {name: value + 1 for name, value in trained.generator.items()}
    checkpoints.save(
        dataclasses.replace(trained, generator=other).as_tree(), tmp_path / "other.pth"
    )
    found = lineage.contradiction(lineage.read_file(tmp_path / "other.pth"), chain)
    assert found is not None
    assert found.startswith("generator_sha256 is ")
    metrics["psnr"] = {"input": 1, "stabilized": 25.1236}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    found = lineage.contradiction(lineage.read_file(tmp_path / "metrics.json"), chain)
    assert found == (f"psnr is 25.1236 in the file, but 25.123456789 in run {trained.run_id}")


def test_what_says_nothing_is_refused_in_one_line(
    root: Path, trained: Checkpoint, tiny_raw: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "a.pth").write_bytes(b"no checkpoint")
    filmed = next(tiny_raw.rglob("unstable/*.mp4"))
    cases = [
        (tmp_path / "a.json", DeepStabError, "is no metrics.json of an evaluation"),
        (tmp_path / "b.json", DeepStabError, "no such file"),
        (tmp_path / "a.pth", CheckpointError, "damaged checkpoint"),
        (tmp_path / "b.mp4", VideoError, "does not exist"),
        (filmed, DeepStabError, "says nothing of where it came from"),
    ]
    for path, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            lineage.read_file(path)
        assert "\n" not in str(caught.value)
    assert not lineage.is_file("lr-0.001")


def test_runs_of_one_name_must_be_told_apart(root: Path, trained: Checkpoint) -> None:
    ids = []
    for _ in range(2):
        with start_run(
            experiment="others",
            root=root,
            outbox=root / "outbox",
            tags={names.NAME_TAG: "it's twice"},
        ) as run:
            ids.append(run.run_id)
    with pytest.raises(TrackingError, match="2 runs are named") as caught:
        Records(root).find("it's twice")
    assert all(run_id in str(caught.value) for run_id in ids)
    with pytest.raises(TrackingError, match="no run 'it is not'"):
        Records(root).find("it is not")


def test_the_lock_speaks_of_the_stages_before_and_of_this_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pth"
    checkpoint.write_bytes(b"weights")
    entry = {"path": checkpoint.as_posix(), "md5": hashlib.md5(b"weights").hexdigest()}
    tree = {"schema": "2.0", "stages": {"train": {"outs": [entry]}, "evaluate": {"outs": []}}}
    lock = tmp_path / "dvc.lock"
    assert read_lock(lock, checkpoint=checkpoint) is None
    lock.write_text(yaml.safe_dump(tree))
    kept = read_lock(lock, checkpoint=checkpoint)
    assert kept is not None
    assert yaml.safe_load(kept) == {"schema": "2.0", "stages": {"train": {"outs": [entry]}}}
    checkpoint.write_bytes(b"trained by hand")
    assert read_lock(lock, checkpoint=checkpoint) is None


def test_durations_are_found_by_what_was_made(tmp_path: Path) -> None:
    remember_duration("flow", 12.3456, digest="a" * 64, scratch=tmp_path)
    remember_duration("flow", 2.0, digest="b" * 64, scratch=tmp_path)
    digests = {"flow": "a" * 64, "download": "a" * 64}
    assert recall_durations(digests, scratch=tmp_path) == {"duration_s/flow": 12.346}


def test_who_only_asks_the_store_does_not_wait_for_torch() -> None:
    code = (
        "import sys, deepstab.tracking.store, deepstab.experiments.registry\n"
        "import deepstab.experiments.lineage\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
