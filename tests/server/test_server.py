"""The real pipeline against a real `mlflow server` on PostgreSQL that is killed while it trains."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepstab.config import flatten, load_params
from deepstab.models import checkpoints
from tests.checkout import Checkout
from tests.conftest import with_values
from tests.services import Postgres, Server, free_port, mlflow_server

if Postgres.program("postgres") is None:
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql", allow_module_level=True)
psycopg2 = pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
mlflow = pytest.importorskip("mlflow", reason="tracking was left out of this environment")

NUM_KILLS = int(os.environ.get("KILLS", "2"))
pytestmark = pytest.mark.timeout(900 + 90 * NUM_KILLS)
SEED = 20
EPOCHS, STEPS_PER_EPOCH = 12, 20
MODEL = "deepstab-gan"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()


@pytest.fixture(scope="module")
def artifact_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def server(
    postgres: Postgres, artifact_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = mlflow_server(
        *(folder, folder / "server.log", "--backend-store-uri", postgres.uri),
        *("--serve-artifacts", "--artifacts-destination", str(artifact_store)),
    )
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def tree(tiny_tree: dict[str, Any]) -> dict[str, Any]:
    """More steps than the tiny parameters have: there must be time for kills."""
    values = {"train.device": "cpu", "train.epochs": EPOCHS, "train.windows_per_video": 10}
    return with_values(tiny_tree, values)


@dataclass(frozen=True)
class Outcome:
    """The checkout after the last training, and every run's reports/history.csv."""

    checkout: Checkout
    last_run_id: str
    histories: dict[str, list[dict[str, float]]]
    said: str


@pytest.fixture(scope="module")
def outcome(
    server: Server, tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """As many trainings, one after the other, as it takes to kill the server during them."""
    checkout = Checkout(tmp_path_factory.mktemp("project") / "checkout", tree)
    checkout.environment["MLFLOW_TRACKING_URI"] = server.uri
    checkout.run("dvc", "repro", "flow")
    log = checkout.root / "train.log"
    chance = random.Random(SEED)
    histories: dict[str, list[dict[str, float]]] = {}
    run_id, num_kills = "", 0
    while num_kills < NUM_KILLS:
        lr_g = 0.001 + 0.0001 * len(histories)
        checkout.write_params(with_values(tree, {"train.lr_g": lr_g}))
        with log.open("ab") as output:
            training = subprocess.Popen(
                ["dvc", "repro", "train"],
                cwd=checkout.root,
                env=checkout.environment,
                stdout=output,
                stderr=output,
            )
        wait_for_points(server, len(histories) + 1, training, log)
        while training.poll() is None and num_kills < NUM_KILLS:
            time.sleep(chance.uniform(0.0, 6.0))
            num_kills += training.poll() is None
            server.kill()
            time.sleep(chance.uniform(0.0, 3.0))
            server.start()
            server.wait()
        assert training.wait(600) == 0, log.read_text()
        run_id = checkpoints.load(checkout.root / "checkpoints/best_stab_gan.pth").run_id
        with (checkout.root / "reports/history.csv").open() as lines:
            histories[run_id] = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(lines)
            ]
    checkout.run("dvc", "repro")
    print(f"{num_kills} kills during {len(histories)} trainings")
    return Outcome(checkout, run_id, histories, log.read_text())


def wait_for_points(
    server: Server, num_runs: int, training: subprocess.Popen[bytes], log: Path
) -> None:
    """Until the last of so many runs has sent something."""
    client = mlflow.MlflowClient(server.uri)
    give_up = time.monotonic() + 120
    while True:
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments)
        if sum("step/total" in run.data.metrics for run in runs) == num_runs:
            return
        assert training.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def checkout(outcome: Outcome) -> Checkout:
    return outcome.checkout


@pytest.fixture(scope="module")
def client(server: Server, outcome: Outcome) -> Any:
    return mlflow.MlflowClient(server.uri)


@pytest.fixture(scope="module")
def run(client: Any, outcome: Outcome) -> Any:
    """The last one, which was evaluated."""
    return client.get_run(outcome.last_run_id)


def history(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id, name))


def test_kills_lose_and_double_nothing(client: Any, server: Server, outcome: Outcome) -> None:
    assert outcome.said.count(f"MLflow at {server.uri} is away: ") >= NUM_KILLS // 2
    assert f"MLflow at {server.uri} is back; what waited was sent" in outcome.said
    experiment = client.get_experiment_by_name("deepstab-gan")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id: run.info.status for run in runs} == dict.fromkeys(
        outcome.histories, "FINISHED"
    )
    num_steps = EPOCHS * STEPS_PER_EPOCH
    for run_id, rows in outcome.histories.items():
        assert [row["epoch"] for row in rows] == list(range(EPOCHS + 1))
        for name in ("gan", "pixel", "smooth", "identity", "total", "discriminator"):
            points = history(client, run_id, f"step/{name}")
            assert [step for step, _ in points] == list(range(num_steps))
            by_epoch = np.array([value for _, value in points]).reshape(EPOCHS, -1)
            means = [row[name] for row in rows[1:]]  # epoch 0 is the networks as initialized
            np.testing.assert_allclose(by_epoch.mean(axis=1), means, rtol=1e-5)
        for name in ("psnr", "cropped_ssim"):
            assert history(client, run_id, name) == [
                (row["epoch"] * STEPS_PER_EPOCH, pytest.approx(row[name], rel=1e-5)) for row in rows
            ]
        stored = {entry.path for entry in client.list_artifacts(run_id, "checkpoints")}
        assert stored == {"checkpoints/best_stab_gan.pth", "checkpoints/final_stab_gan.pth"}


def test_the_run_is_complete_and_in_postgres(
    run: Any, checkout: Checkout, postgres: Postgres, outcome: Outcome
) -> None:
    params = flatten(load_params(checkout.root / "params.yaml"))
    assert run.data.params == {key: str(value) for key, value in params.items()}
    measured = json.loads((checkout.root / "reports/metrics.json").read_text())
    assert measured["run_id"] == run.info.run_id
    for row in ("untrained", "stabilized"):
        for name in ("psnr", "jitter_px", "stability"):
            assert run.data.metrics[f"test/{row}/{name}"] == pytest.approx(
                measured[name][row], rel=1e-5
            )
    inputs = {given.dataset.name: given.dataset.digest for given in run.inputs.dataset_inputs}
    assert set(inputs) == {"flights-training", "flights-validation", "flights-test"}
    assert {digest[:16] for digest in inputs.values()} == {measured["data"]["manifest"]}

    database = psycopg2.connect(postgres.dsn)
    with database, database.cursor() as cursor:
        cursor.execute("SELECT run_uuid FROM runs")
        assert {run_id for (run_id,) in cursor.fetchall()} == set(outcome.histories)
    database.close()
    assert not (checkout.root / "mlflow.db").exists()


def test_artifacts_are_served(
    client: Any, run: Any, checkout: Checkout, artifact_store: Path, tmp_path: Path
) -> None:
    for folder, path in (
        ("checkpoints", "checkpoints/best_stab_gan.pth"),
        ("checkpoints", "checkpoints/final_stab_gan.pth"),
        ("params", "params.yaml"),
        ("reports", "reports/metrics.json"),
        ("data", "data/raw/manifest.json"),
    ):
        name = f"{folder}/{Path(path).name}"
        fetched = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert fetched.read_bytes() == (checkout.root / path).read_bytes()
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert list(artifact_store.rglob(f"{run.info.run_id}/artifacts/checkpoints/best_stab_gan.pth"))
    assert not (checkout.root / "mlruns").exists()
    assert not list((checkout.root / ".scratch" / "outbox").iterdir())


def test_the_registry_works(client: Any, run: Any) -> None:
    client.create_registered_model(MODEL)
    for number in ("1", "2"):
        made = client.create_model_version(
            MODEL, f"{run.info.artifact_uri}/checkpoints", run.info.run_id
        )
        assert made.version == number
        client.set_registered_model_alias(MODEL, "champion", number)
    champion = client.get_model_version_by_alias(MODEL, "champion")
    assert (champion.version, champion.run_id) == ("2", run.info.run_id)


def test_a_server_that_is_away_at_the_start_is_one_clear_line(
    checkout: Checkout, tree: dict[str, Any]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    checkout.environment["MLFLOW_TRACKING_URI"] = uri
    checkout.write_params(with_values(tree, {"train.lr_g": 0.0005}))
    before = time.monotonic()
    output = checkout.run("dvc", "repro", ok=False)
    # Mostly dvc's and torch's, which a busy machine draws out; mlflow would try for minutes.
    # test_tracking holds tracking itself to ten seconds.
    assert time.monotonic() - before < 120
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: MLflow at {uri}: ")
    assert "start the server, correct or unset MLFLOW_TRACKING_URI" in line
    assert "Traceback" not in output
