"""The launchers' commands as they are typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from deepstab.data.shards import ShardIndex
from deepstab.experiments.records import Records
from tests.conftest import ROOT, with_values

# Of mlflow about its own tables.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

START = """
from deepstab.errors import run_stage
from deepstab.training.launch import start_all
run_stage(start_all)
"""
LAUNCHERS = {
    "accelerate": ("accelerate", "launch", "--num_processes", "2"),
    "torchrun": ("torchrun", "--standalone", "--nproc_per_node", "2"),
}
TRAIN = str(ROOT / "stages/train.py")


def environment(**more: str) -> dict[str, str]:
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("DVC_", "MLFLOW_", "DEEPSTAB_", "ACCELERATE_", "MASTER_"))
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT / "src"), **more}


def start_all(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_process_is_one_process() -> None:
    assert start_all(MASTER_ADDR="127.0.0.1").returncode == 0
    done = start_all(MASTER_ADDR="127.0.0.1", ACCELERATE_MIXED_PRECISION="no", WORLD_SIZE="2")
    assert (done.returncode, done.stderr) == (0, "")


def test_how_many_processes_must_be_said() -> None:
    done = start_all(MASTER_ADDR="127.0.0.1", ACCELERATE_MIXED_PRECISION="no")
    assert done.returncode == 1
    assert done.stderr.startswith("error: accelerate started one process of several; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif("LAUNCH" not in os.environ, reason="minutes: make launch-test")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launched_training_killed_goes_on_as_one_run(
    tmp_path: Path,
    tiny_tree: dict[str, Any],
    tiny_raw: Path,
    tiny_index: ShardIndex,
    launcher: str,
) -> None:
    params = with_values(tiny_tree, {"train.epochs": 3})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "dvc.yaml").touch()
    command = [*LAUNCHERS[launcher], TRAIN, "--raw", str(tiny_raw)]
    command += ["--shards", str(tiny_index.folder)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
        )

    killed = start()
    while not list(tmp_path.glob(".scratch/train/*/state.pth")):
        assert killed.poll() is None, killed.communicate()[1]
    started = psutil.Process(killed.pid).children(recursive=True)
    (second,) = (p for p in started if p.environ().get("RANK") == "1")
    second.kill()
    said = killed.communicate(timeout=30)[1]
    assert killed.returncode != 0
    assert said.count("error: a process of this training ended before the others") == 1
    assert not any(process.is_running() for process in started)
    (run,) = Records(tmp_path).client.search_runs(["1"])
    assert run.info.status == "FAILED"

    again = start()
    said = again.communicate(timeout=300)[1]
    assert again.returncode == 0, said
    assert said.count("resuming after epoch") == said.count("epoch 3: ") == 1
    (run,) = Records(tmp_path).client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["train.processes"] == "2"
    assert (tmp_path / "reports/history.csv").read_text().count("\n") == 5
