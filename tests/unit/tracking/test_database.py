"""Real SQLite stores: killed while they are made, damaged, copied and moved."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deepstab.experiments.records import Records
from deepstab.tracking.connection import tracking_uri
from deepstab.tracking.store import start_run

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

OPEN_STORE = """
from pathlib import Path
from deepstab.tracking.connection import open_store, tracking_uri
open_store(tracking_uri(Path.cwd()), experiment="tests", root=Path.cwd())
"""
LOG_RUN = """
from pathlib import Path
from deepstab.errors import run_stage
from deepstab.tracking.store import start_run
def main():
    with start_run(experiment="tests", root=Path.cwd(), outbox=Path("outbox")) as run:
        run.log_text("new", "a.txt")
    print(run.run_id)
run_stage(main)
"""
FIND_RUN = """
from pathlib import Path
from deepstab.errors import run_stage
from deepstab.experiments.records import Records
run_stage(lambda: Records(Path.cwd()).find("0" * 32))
"""
AS_MLFLOW_DOES = """
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore("sqlite:///mlflow.db", "mlruns")
"""


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DEEPSTAB_TRACKING", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


def kill_while_made(code: str, root: Path, *, num_bytes: int) -> None:
    """Run code in a project until its database, of 950 kB in the end, has so many bytes."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not any(
        path.stat().st_size >= num_bytes for path in (root / "mlflow.db", root / "mlflow.db.new")
        if path.exists()
    ):  # fmt: skip
        assert time.monotonic() < give_up
        assert process.poll() is None
    process.kill()
    process.wait()


def log_run(root: Path, text: str) -> str:
    with start_run(experiment="tests", root=root, outbox=root / "outbox") as run:
        run.log_text(text, "a.txt")
    return run.run_id


def artifact(root: Path, run_id: str) -> Path:
    return root / "mlruns" / "1" / run_id / "artifacts" / "a.txt"


def said_by(code: str, root: Path, *, ok: bool = True) -> str:
    """What a process of its own says: in this one MLflow would keep a file open that is gone."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode == 0) == ok, done.stderr
    return (done.stdout if ok else done.stderr).strip()


def refused(root: Path) -> str:
    """The one line that a training and a look at the runs both end with."""
    training, reading = (said_by(code, root, ok=False) for code in (LOG_RUN, FIND_RUN))
    assert training == reading
    assert "\n" not in training
    assert "server" not in training
    return training.removeprefix("error: ")


@pytest.mark.parametrize("num_bytes", [1, 100_000, 400_000, 700_000])
def test_a_store_whose_making_was_killed_is_made_by_the_next(
    tmp_path: Path, num_bytes: int
) -> None:
    kill_while_made(OPEN_STORE, tmp_path, num_bytes=num_bytes)
    run_id = log_run(tmp_path, "kept")
    assert artifact(tmp_path, run_id).read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {
        "mlflow.db", "mlflow.db.lock", "mlruns", "outbox",
    }  # fmt: skip


def test_a_half_made_store_is_named_and_the_remedy_helps(tmp_path: Path) -> None:
    kill_while_made(AS_MLFLOW_DOES, tmp_path, num_bytes=500_000)
    said = refused(tmp_path)
    assert said == (
        f"the MLflow database {tmp_path / 'mlflow.db'} is half-made, by a process that was killed, "
        "and holds no run; delete it and run again"
    )
    (tmp_path / "mlflow.db").unlink()
    assert artifact(tmp_path, said_by(LOG_RUN, tmp_path)).read_text() == "new"


def test_a_store_of_another_mlflow_is_not_to_be_deleted(tmp_path: Path) -> None:
    log_run(tmp_path, "kept")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '90e64c465722'")
    said = refused(tmp_path)
    assert "which holds 1 runs" in said
    assert f"keep a copy and run `mlflow db upgrade sqlite:///{tmp_path}/mlflow.db`" in said
    assert "delete" not in said


@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_a_damaged_store_is_named_and_the_remedy_helps(tmp_path: Path, damage: str) -> None:
    log_run(tmp_path, "kept")
    database = tmp_path / "mlflow.db"
    kept = database.read_bytes()[:300_000]
    database.write_bytes(kept if damage == "truncated" else b"no database, but long" * 100)
    said = refused(tmp_path)
    assert said.startswith(f"the MLflow database {database} is damaged (")
    assert "move it away: the next run makes a new one" in said
    database.rename(tmp_path / "away")
    assert artifact(tmp_path, said_by(LOG_RUN, tmp_path)).read_text() == "new"


@pytest.mark.parametrize("way", ["copied", "moved"])
def test_a_checkout_that_was_copied_or_moved_has_its_runs_at_its_own_place(
    tmp_path: Path, way: str
) -> None:
    first, second = tmp_path / "first one", tmp_path / "second one"
    old = log_run(first, "old")
    records = Records(first)
    model = records.client.create_logged_model("1", name="model", source_run_id=old)
    records.client.create_registered_model("named")
    records.client.create_model_version("named", model.artifact_location, old)
    if way == "copied":
        shutil.copytree(first, second)
        artifact(second, old).write_text("old, in the second")
    else:
        first.rename(second)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}

    text = Records(second).read_text(old, "a.txt")  # by the first who looks, writing or not
    assert text == ("old, in the second" if way == "copied" else "old")
    new = log_run(second, "new")
    assert artifact(second, new).read_text() == "new"
    client: Any = Records(second).client
    here = (second / "mlruns" / "1").as_uri()
    assert client.get_experiment("0").artifact_location == (second / "mlruns" / "0").as_uri()
    assert client.get_logged_model(model.model_id).artifact_location.startswith(f"{here}/")
    assert client.get_model_version("named", "1").source.startswith(f"{here}/")
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_artifacts_that_somebody_put_elsewhere_stay_there(tmp_path: Path) -> None:
    log_run(tmp_path / "project", "here")
    elsewhere = tmp_path / "large disk" / "mlruns" / "2"
    elsewhere.mkdir(parents=True)
    client: Any = Records(tmp_path / "project").client
    client.create_experiment("large", elsewhere.as_uri())
    client.create_experiment("bucket", "s3://bucket/mlruns/3")
    client = Records(tmp_path / "project").client
    assert client.get_experiment("2").artifact_location == elsewhere.as_uri()
    assert client.get_experiment("3").artifact_location == "s3://bucket/mlruns/3"


def test_a_name_with_signs_of_its_own_is_found(tmp_path: Path) -> None:
    root = tmp_path / "50% of what? [all]"
    assert artifact(root, log_run(root, "kept")).read_text() == "kept"
    assert tracking_uri(root).startswith("sqlite:///")
