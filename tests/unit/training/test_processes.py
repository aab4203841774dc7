"""Two processes that train together: as one, killed, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deepstab.config import parse_params
from deepstab.data.shards import ShardIndex
from deepstab.experiments.records import Records
from deepstab.models import checkpoints
from deepstab.tracking import names
from deepstab.tracking.run import Tracker
from deepstab.training.loop import train
from deepstab.training.processes import shares
from deepstab.training.state import StateFile
from tests.conftest import with_values

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

NUM_EPOCHS, BATCH = 2, 3
WINDOWS_PER_VIDEO, STEPS = 2, 2  # of four videos: first three windows each, then the last two
# Two trainings by two processes each, which import but once. The first loses its second process
# after an epoch. Prints the exit codes, and how long the first survived.
TWICE = """
import json, os, signal, socket, sys, time
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store, torch._dynamo
from deepstab.errors import run_stage
from deepstab.training.experiment import run_experiment
params, raw, shards = map(Path, sys.argv[1:])
here = Path.cwd()

def start(rank, port):
    child = os.fork()
    if child:
        return child
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )
    code = 0
    try:
        run_stage(lambda: run_experiment(
            params, raw=raw, shards=shards, destination=here / "checkpoints", root=here
        ))
    except SystemExit as ending:
        code = ending.code
    sys.stderr.flush()
    os._exit(code)

def start_both():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(rank, port) for rank in (0, 1)]

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

main, other = start_both()
while not list(here.glob(".scratch/train/*/state.pth")):
    time.sleep(0.005)
os.kill(other, signal.SIGKILL)
began = time.monotonic()
codes = [ended(main), ended(other)]
survived_s = time.monotonic() - began
print("again", file=sys.stderr, flush=True)
print(json.dumps([codes, survived_s, [ended(child) for child in start_both()]]))
"""


@dataclass
class Twice:
    """What came of the two trainings."""

    root: Path
    tree: dict[str, Any]
    codes: list[int]
    survived_s: float
    codes_again: list[int]
    said: str
    said_again: str


@pytest.fixture(scope="module")
def twice(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tree: dict[str, Any],
    tiny_raw: Path,
    tiny_index: ShardIndex,
) -> Twice:
    root = tmp_path_factory.mktemp("twice")
    settings = {
        "train.epochs": NUM_EPOCHS,
        "train.batch_size": BATCH,
        "train.windows_per_video": WINDOWS_PER_VIDEO,
    }
    tree = with_values(tiny_tree, settings)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    kept.pop("DEEPSTAB_TRACKING", None)
    done = subprocess.run(
        [sys.executable, "-c", TWICE, "params.yaml", tiny_raw, tiny_index.folder],
        cwd=root,
        env=kept | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, said_again = done.stderr.split("again\n", 1)
    return Twice(root, tree, *json.loads(done.stdout), said, said_again)


def runs(root: Path) -> list[Any]:
    return list(Records(root).client.search_runs(["1"]))


def test_where_one_is_killed_the_other_ends_within_seconds_with_one_line(twice: Twice) -> None:
    assert twice.codes == [1, -signal.SIGKILL]
    assert twice.survived_s < 15
    assert "Traceback" not in twice.said
    lines = [line for line in twice.said.splitlines() if line.startswith("error:")]
    assert lines == [
        "error: a process of this training ended before the others; run again to go on"
    ]


def test_run_again_they_go_on_in_the_one_run(twice: Twice) -> None:
    assert twice.codes_again == [0, 0]
    assert twice.said_again.count("resuming after epoch") == 1
    assert twice.said_again.count(f"train: {NUM_EPOCHS * STEPS}/{NUM_EPOCHS * STEPS}") == 1
    (run,) = runs(twice.root)
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.PROCESSES_TAG] == "2"
    assert checkpoints.load(twice.root / names.FINAL_FILE).run_id == run.info.run_id
    for name, points in (("step/total", NUM_EPOCHS * STEPS), ("motion_error", NUM_EPOCHS + 1)):
        history = Records(twice.root).client.get_metric_history(run.info.run_id, name)
        assert Counter(Counter(point.step for point in history).values()) == {1: points}
    assert not list((twice.root / ".scratch/train").iterdir())
    assert not list((twice.root / ".scratch/outbox").iterdir())


def test_together_they_are_one_process_with_twice_the_batch(
    twice: Twice, tiny_index: ShardIndex, tmp_path: Path
) -> None:
    tree = with_values(twice.tree, {"train.batch_size": 2 * BATCH})
    alone = train(
        tiny_index,
        params=parse_params(tree, origin="t"),
        vgg19=None,
        destination=tmp_path,
        state=StateFile(tmp_path / "scratch", "this"),
        tracker=Tracker(),
    )
    (run,) = runs(twice.root)
    for name in ("total", "motion", "smooth", "pixel", "gan", "discriminator"):
        history = Records(twice.root).client.get_metric_history(run.info.run_id, f"step/{name}")
        by_step = {point.step: point.value for point in history}
        for epoch, row in enumerate(alone.history[1:]):
            steps = [by_step[epoch * STEPS + step] for step in range(STEPS)]
            assert sum(steps) / STEPS == pytest.approx(row[name], rel=1e-4), (name, epoch)
    one, two = (
        checkpoints.load(folder / names.FINAL_NAME)
        for folder in (tmp_path, twice.root / names.CHECKPOINTS_FOLDER)
    )
    assert two.validation == pytest.approx(one.validation, rel=1e-3)
    for found, wanted in ((two.generator, one.generator), (two.discriminator, one.discriminator)):
        for name, value in wanted.items():
            # This bias adds the same to the weights of all cells, so its gradient is rounding.
            tolerance = 1e-2 if name.endswith("change.bias") else 1e-4
            torch.testing.assert_close(found[name], value, atol=tolerance, rtol=1e-3)


def test_one_process_takes_all_windows_in_order() -> None:
    assert shares(5, 2) == [[0, 1], [2, 3], [4]]
