"""Tracking against a real SQLite store and a real `mlflow server` that is killed and restarted."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from deepstab.errors import TrackingError
from deepstab.tracking import names
from deepstab.tracking import run as run_module
from deepstab.tracking.connection import connect, tracking_uri
from deepstab.tracking.outbox import Point, Tag
from deepstab.tracking.run import Tracker
from deepstab.tracking.store import Training, attach_run, project_root, start_run
from tests.services import Server, mlflow_server

pytest.importorskip("mlflow", reason="tracking was left out of this environment")

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

EXPERIMENT = "tests"
SOURCE_ROOT = Path(run_module.__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_", "DEEPSTAB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def start_python(code: str, *, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE_ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], *, returncode: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == returncode, err
    return out.strip(), err


EXPERIMENT_STAGE = f"""
from pathlib import Path
from deepstab.tracking.store import project_root, start_run
root = project_root()
with start_run(experiment={EXPERIMENT!r}, root=root, outbox=root / ".scratch") as run:
    run.log_params({{"train.lr_g": 1e-4, "data.split.test": ["4", "8"]}})
    for step in range(50):
        run.log_metrics({{"loss": 1 / (step + 1), "psnr": float(step)}}, step=step)
    run.log_text("weights", "checkpoints/final.txt")
    print(run.run_id)
"""


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A store opened for the first time by four processes at once, as DVC's queue may do.

    Returns:
        The project root, the four run ids, and what each process wrote to stderr.
    """
    root = tmp_path_factory.mktemp("project")
    processes = []
    for number in range(4):
        workspace = tmp_path_factory.mktemp("workspace")
        names = {"DVC_ROOT": str(root), "DVC_EXP_NAME": f"exp-{number}"}
        processes.append(start_python(EXPERIMENT_STAGE, cwd=workspace, **names))
    results = [finished(process) for process in processes]
    return root, [out for out, _ in results], [err for _, err in results]


@pytest.fixture
def root(first_runs: tuple[Path, list[str], list[str]]) -> Path:
    return first_runs[0]


def client(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(root))


def history(root: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client(root).get_metric_history(run_id, name))


def artifacts(root: Path, run_id: str, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for entry in client(root).list_artifacts(run_id, folder):
        found |= artifacts(root, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def test_four_processes_open_a_new_store_at_once(
    first_runs: tuple[Path, list[str], list[str]],
) -> None:
    root, run_ids, errors = first_runs
    assert len(set(run_ids)) == 4
    assert errors == [""] * 4  # no chatter of mlflow or alembic
    assert not list((root / ".scratch").iterdir())
    for number, run_id in enumerate(run_ids):
        run = client(root).get_run(run_id)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == run.data.tags["dvc.experiment"] == f"exp-{number}"
        assert run.data.params == {"train.lr_g": "0.0001", "data.split.test": "['4', '8']"}
        assert history(root, run_id, "psnr") == [(step, step) for step in range(50)]
        assert history(root, run_id, "loss") == [(step, 1 / (step + 1)) for step in range(50)]
        assert artifacts(root, run_id) >= {"checkpoints/final.txt", "environment/packages.txt"}
        # Under the project, though the process ran in a workspace of its own.
        assert (root / "mlruns" / "1" / run_id / "artifacts/checkpoints/final.txt").is_file()
    default = client(root).get_experiment("0").artifact_location
    assert default == (root / "mlruns" / "0").as_uri()


@pytest.mark.parametrize(
    ("raised", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_cut_short_is_closed_with_all_its_points(
    root: Path, raised: type[BaseException], status: str
) -> None:
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(raised))
        run = stack.enter_context(
            start_run(experiment=EXPERIMENT, root=root, outbox=root / ".scratch")
        )
        run.log_metrics({"loss": 3.0}, step=0)
        run.log_metrics({"loss": float("nan"), "psnr": 20.0}, step=1)
        run.set_tags({"note": "short"})
        raise raised
    stored = client(root).get_run(run.run_id)
    assert (stored.info.status, stored.data.tags["note"]) == (status, "short")
    assert stored.info.end_time is not None
    assert str(history(root, run.run_id, "loss")) == "[(0, 3.0), (1, nan)]"
    assert history(root, run.run_id, "psnr") == [(1, 20.0)]


def test_points_are_timed_when_they_are_logged(root: Path) -> None:
    with start_run(experiment=EXPERIMENT, root=root, outbox=root / ".scratch") as run:
        before = time.time()
        run.log_metrics({"loss": 1.0}, step=0)
        after = time.time()
        time.sleep(0.2)
    (point,) = client(root).get_metric_history(run.run_id, "loss")
    assert int(before * 1000) <= point.timestamp <= after * 1000


def test_an_answer_lost_after_the_points_were_stored_doubles_nothing(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepstab.tracking.store import _Store

    send = _Store.send_records
    lost = 0

    def lose_two_answers(self: _Store, run_id: str, points: list[Point], tags: list[Tag]) -> None:
        nonlocal lost
        send(self, run_id, points, tags)
        if lost < 2:
            lost += 1
            raise ConnectionError("answer lost")

    monkeypatch.setattr(_Store, "send_records", lose_two_answers)
    with start_run(experiment=EXPERIMENT, root=root, outbox=root / ".scratch") as run:
        for step in range(1200):
            run.log_metrics({"loss": step / 7, "same": 0.0}, step=step)
    assert lost == 2
    assert history(root, run.run_id, "loss") == [(step, step / 7) for step in range(1200)]
    assert history(root, run.run_id, "same") == [(step, 0.0) for step in range(1200)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_a_refused_artifact_does_not_hold_up_the_rest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from deepstab.tracking.store import _Store

    monkeypatch.setattr(run_module, "_GRACE_S", 0.1)
    send = _Store.send_file

    def refuse_one(self: _Store, run_id: str, path: Path, folder: str) -> None:
        if path.name == "a.txt":
            raise PermissionError("no room for a.txt")
        send(self, run_id, path, folder)

    with monkeypatch.context() as patch:
        patch.setattr(_Store, "send_file", refuse_one)
        with start_run(experiment=EXPERIMENT, root=root, outbox=tmp_path) as run:
            run.log_text("first", "a.txt")
            run.log_text("second", "b.txt")
            run.log_metrics({"loss": 1.0}, step=0)
    assert client(root).get_run(run.run_id).info.status == "FINISHED"
    assert "b.txt" in artifacts(root, run.run_id)
    assert history(root, run.run_id, "loss") == [(0, 1.0)]
    (waiting,) = tmp_path.rglob("a.txt")
    assert str(waiting.parents[1]) in caplog.messages[-1]

    with start_run(experiment=EXPERIMENT, root=root, outbox=tmp_path):
        pass
    assert "a.txt" in artifacts(root, run.run_id)
    assert not list(tmp_path.iterdir())


def test_artifacts_are_taken_as_they_were_when_logged(root: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "best_stab_gan.pth"
    with start_run(experiment=EXPERIMENT, root=root, outbox=tmp_path / "outbox") as run:
        for content in (b"epoch 1", b"epoch 2"):
            checkpoint.write_bytes(content)
            run.log_artifact(checkpoint, "checkpoints")
        checkpoint.unlink()  # as DVC does before it runs a stage again
        with pytest.raises(FileNotFoundError):
            run.log_artifact(checkpoint)
        with pytest.raises(ValueError, match=r"artifact '\.\./up\.txt': use a path relative"):
            run.log_text("", "../up.txt")
        with pytest.raises(ValueError, match="metric name 'a=b': use letters"):
            run.log_metrics({"a=b": 1.0}, step=0)
    stored = root / "mlruns" / "1" / run.run_id / "artifacts"
    assert (stored / "checkpoints/best_stab_gan.pth").read_bytes() == b"epoch 2"


def test_a_data_set_is_an_input_of_the_run(root: Path) -> None:
    sha256 = "0123456789abcdef" * 4
    with start_run(experiment=EXPERIMENT, root=root, outbox=root / ".scratch") as run:
        run.log_dataset("flights", sha256=sha256, source="flights", context="training")
        run.log_dataset(
            "deepstab", sha256=sha256, source="https://example.org/deepstab", context="test"
        )
    inputs = client(root).get_run(run.run_id).inputs.dataset_inputs
    assert {i.dataset.name: i.tags[0].value for i in inputs} == {
        "flights": "training",
        "deepstab": "test",
    }
    assert {i.dataset.digest for i in inputs} == {sha256[:36]}
    assert all(sha256 in i.dataset.profile for i in inputs)


def test_system_metrics_come_with_the_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setattr(run_module, "_SEND_EVERY_S", 0.05)
    with start_run(
        experiment=EXPERIMENT, root=root, outbox=root / ".scratch", system_metrics=True
    ) as run:
        time.sleep(1.0)
    points = history(root, run.run_id, "system/system_memory_usage_percentage")
    assert len(points) >= 2
    assert all(0 < value < 100 for _, value in points)


def test_the_second_stage_continues_the_run(root: Path) -> None:
    params = {"train.lr_g": 1e-4, "evaluate.window_stride": 8}
    outbox = root / ".scratch"
    with start_run(experiment=EXPERIMENT, root=root, outbox=outbox) as train:
        train.log_params({"train.lr_g": 1e-4})
        train.log_metrics({"loss": 1.0}, step=0)
    with attach_run(
        train.run_id, params=params, experiment=EXPERIMENT, root=root, outbox=outbox
    ) as evaluate:
        assert evaluate.run_id == train.run_id
        assert client(root).get_run(train.run_id).info.status == "RUNNING"
        evaluate.log_metrics({"stability": 0.9}, step=0)
    run = client(root).get_run(train.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0, "stability": 0.9}
    assert run.data.params == {key: str(value) for key, value in params.items()}


def test_a_stage_that_is_repeated_adds_only_what_differs(root: Path) -> None:
    with start_run(experiment=EXPERIMENT, root=root, outbox=root / "outbox") as first:
        first.log_params({"seed": 1})
    for value in (0.1, 0.1, 0.3):
        with attach_run(
            first.run_id,
            params={"seed": 1},
            experiment=EXPERIMENT,
            root=root,
            outbox=root / "outbox",
        ) as again:
            again.log_metrics({"test/jitter": value}, step=0)
    assert again.run_id == first.run_id
    assert history(root, first.run_id, "test/jitter") == [(0, 0.1), (0, 0.3)]


def test_a_run_that_cannot_hold_the_parameters_is_followed_by_another(root: Path) -> None:
    options: dict[str, Any] = {"experiment": EXPERIMENT, "root": root, "outbox": root / ".scratch"}
    with start_run(**options) as train:
        train.log_params({"evaluate.window_stride": 8})
        with pytest.raises(TrackingError, match=r"evaluate\.window_stride.* start a new run"):
            train.log_params({"evaluate.window_stride": 16})
    for run_id in (train.run_id, "0" * 32):
        with attach_run(run_id, params={"evaluate.window_stride": 16}, **options) as other:
            assert other.run_id != run_id
        run = client(root).get_run(other.run_id)
        assert run.data.tags["deepstab.trained_in"] == run_id
        assert run.data.params == {"evaluate.window_stride": "16"}
        assert run.info.status == "FINISHED"


def test_what_a_killed_process_left_is_sent_by_the_next(root: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from deepstab.tracking.store import start_run
with start_run(experiment={EXPERIMENT!r}, root=Path({str(root)!r}), outbox=Path("outbox")) as run:
    for step in range(700):
        run.log_metrics({{"loss": float(step)}}, step=step)
    run.log_text("kept", "kept.txt")
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    run_id, _ = finished(start_python(code, cwd=tmp_path), returncode=-signal.SIGKILL)
    (left,) = (tmp_path / "outbox").iterdir()
    with (left / "journal.jsonl").open("a") as journal:
        journal.write('{"point": ["loss", 1')  # cut off in the middle of a line
    killed = client(root).get_run(run_id)
    assert killed.info.status == "RUNNING"
    uploading = Path(local_file_uri_to_path(killed.info.artifact_uri), ".artifact.uploading.1")
    uploading.parent.mkdir(parents=True, exist_ok=True)
    uploading.write_text("ke")  # as MLflow calls a file until it is whole

    with start_run(experiment=EXPERIMENT, root=root, outbox=tmp_path / "outbox") as other:
        pass
    assert other.run_id != run_id
    assert not uploading.exists()
    assert client(root).get_run(run_id).info.status == "KILLED"
    assert history(root, run_id, "loss") == [(step, step) for step in range(700)]
    assert "kept.txt" in artifacts(root, run_id)
    assert not list((tmp_path / "outbox").iterdir())


def test_a_run_that_nobody_heard_of_is_found_again(root: Path, tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from deepstab.tracking import store
store.Run = lambda *_, **__: os._exit(9)  # killed as soon as the run is there
with store.start_run(
    experiment="killed", root=Path({str(root)!r}), outbox=Path({str(tmp_path / "outbox")!r}),
    training=store.Training("7" * 32, {{}}),
):
    pass
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == 9
    training = Training("7" * 32, {"seed": 1})

    def go_on() -> Tracker:
        with start_run(
            experiment="killed", root=root, outbox=tmp_path / "outbox", training=training
        ) as tracker:
            tracker.log_params({"seed": 1})
        return tracker

    tracker = go_on()
    (packages,) = (root / "mlruns").glob(f"*/{tracker.run_id}/artifacts/{names.PACKAGES_FILE}")
    packages.write_text("of the process before")
    assert go_on().run_id == tracker.run_id
    assert packages.read_text() == "of the process before"
    client = connect(tracking_uri(root))
    experiment = client.get_experiment_by_name("killed")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (tracker.run_id, "FINISHED")


def test_without_mlflow_only_tracking_is_missing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
sys.modules["mlflow"] = None
from deepstab.errors import TrackingError
from deepstab.tracking.store import attach_run, start_run
options = {"experiment": "e", "root": Path.cwd(), "outbox": Path("outbox")}
try:
    with start_run(**options):
        pass
except TrackingError as error:
    print(error)
import os
os.environ["DEEPSTAB_TRACKING"] = "off"
with start_run(**options) as run:
    run.log_params({"a": 1})
    run.log_metrics({"loss": 1.0}, step=0)
    run.log_artifact(Path("nothing.pth"))
    assert run.flush()
del os.environ["DEEPSTAB_TRACKING"]
with attach_run(run.run_id, params={}, **options) as run:
    assert run.run_id == ""
"""
    out, _ = finished(start_python(code, cwd=tmp_path))
    assert "mlflow is not installed (" in out
    assert "DEEPSTAB_TRACKING=off" in out
    assert not (tmp_path / "outbox").exists()


def test_the_store_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").touch()
    inside = tmp_path / "stages" / "deep"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert project_root() == tmp_path
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    assert project_root() == Path("/elsewhere")

    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///store/runs.db")
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/store/runs.db"
    for uri in ("sqlite:////absolute/runs.db", "http://host:5000", "postgresql://u:p@host/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert tracking_uri(tmp_path) == uri


@pytest.mark.parametrize("behavior", ["refuses", "hangs", "is no database"])
def test_a_store_that_is_away_at_the_start_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behavior: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if behavior == "hangs":
            listener.listen()
        uri = f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}"
        shown = uri.replace("user:secret@", "")
        if behavior == "is no database":
            (tmp_path / "file").touch()
            uri = shown = f"sqlite:///{tmp_path}/file/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        before = time.monotonic()
        with (
            pytest.raises(TrackingError) as caught,
            start_run(experiment=EXPERIMENT, root=tmp_path, outbox=tmp_path / "outbox"),
        ):
            pytest.fail("a run was opened")
    assert time.monotonic() - before < 10
    message = str(caught.value)
    assert message.startswith(f"MLflow at {shown}: ")
    assert "correct or unset MLFLOW_TRACKING_URI, or set DEEPSTAB_TRACKING=off" in message
    assert ("start the server" in message) == (behavior != "is no database")
    assert "secret" not in message
    assert "\n" not in message


@pytest.fixture(scope="module")
def server(
    first_runs: tuple[Path, list[str], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = mlflow_server(first_runs[0], tmp_path_factory.mktemp("server") / "server.log")
    server.start()
    server.wait()
    yield server
    server.kill()


def test_a_server_with_its_defaults_finds_the_runs(
    server: Server, first_runs: tuple[Path, list[str], list[str]]
) -> None:
    from mlflow import MlflowClient

    _, run_ids, _ = first_runs
    remote = MlflowClient(server.uri)
    experiment = remote.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = remote.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in found} >= set(run_ids)
    address = f"{server.uri}/get-artifact?run_uuid={run_ids[0]}&path=checkpoints/final.txt"
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == b"weights"


def test_a_server_killed_three_times_loses_and_doubles_nothing(
    server: Server,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(run_module, "_SEND_EVERY_S", 0.1)
    monkeypatch.setattr(run_module, "_GRACE_S", 1.0)
    caplog.set_level(logging.WARNING, "deepstab")
    chance = random.Random(20)
    outbox = tmp_path / "outbox"
    slowest_s, num_steps = 0.0, 0

    def said(state: str) -> list[str]:
        return [m for m in caplog.messages if m.startswith(f"MLflow at {server.uri} is {state}")]

    with monkeypatch.context() as at_server:
        at_server.setenv("MLFLOW_TRACKING_URI", server.uri)
        with start_run(experiment=EXPERIMENT, root=root, outbox=outbox) as run:

            def work_until(reached: Callable[[], bool]) -> None:
                nonlocal slowest_s, num_steps
                give_up = time.monotonic() + 120
                while not reached():
                    assert time.monotonic() < give_up, caplog.messages
                    before = time.monotonic()
                    run.log_metrics({"loss": num_steps / 7, "constant": 0.5}, step=num_steps)
                    slowest_s = max(slowest_s, time.monotonic() - before)
                    num_steps += 1
                    time.sleep(0.01)

            def work_for(duration_s: float) -> None:
                end = time.monotonic() + duration_s
                work_until(lambda: time.monotonic() > end)

            for outage in range(2):
                work_for(chance.uniform(0.5, 2.5))
                server.kill()
                run.log_text(f"written while it was away: {outage}", f"away/{outage}.txt")
                work_for(1.0)
                server.start()
                work_until(lambda: len(said("back")) == len(said("away")))
            work_for(chance.uniform(0.5, 2.5))
            server.kill()
            run.log_text("written at the end", "away/end.txt")
            work_for(0.5)
    assert slowest_s < 0.25
    assert (len(said("away")), len(said("back"))) == (3, 2)
    assert f"the rest is in {outbox}" in caplog.messages[-1]

    server.start()
    server.wait()
    code = f"""
from pathlib import Path
from deepstab.tracking.store import attach_run
with attach_run(
    {run.run_id!r}, params={{"evaluate.window_stride": 8}}, experiment={EXPERIMENT!r},
    root=Path.cwd(), outbox=Path({str(outbox)!r}),
) as run:
    run.log_metrics({{"stability": 0.9}}, step=0)
    print(run.run_id)
"""
    later = start_python(code, cwd=tmp_path, MLFLOW_TRACKING_URI=server.uri)
    assert finished(later) == (run.run_id, "")

    assert num_steps > 100
    assert Counter(history(root, run.run_id, "loss")) == Counter(
        (step, step / 7) for step in range(num_steps)
    )
    assert history(root, run.run_id, "constant") == [(step, 0.5) for step in range(num_steps)]
    assert history(root, run.run_id, "stability") == [(0, 0.9)]
    assert client(root).get_run(run.run_id).info.status == "FINISHED"
    assert artifacts(root, run.run_id) >= {"away/0.txt", "away/1.txt", "away/end.txt"}
    assert not list(outbox.iterdir())
