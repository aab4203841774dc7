"""The real pipeline against a real `mlflow server` on PostgreSQL that is killed while it trains."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepstab.config import flatten, parse_params
from tests.checkout import Checkout
from tests.conftest import with_values
from tests.services import MlflowServer, Postgres, free_port

if Postgres.program("postgres") is None:
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql", allow_module_level=True)
psycopg2 = pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
mlflow = pytest.importorskip("mlflow", reason="tracking was left out of this environment")

# make server-test KILLS=20
NUM_KILLS = int(os.environ.get("KILLS", "3"))
STEPS_PER_KILL = 80  # a server takes ten seconds and more to start
SEED = 20
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
) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    server = MlflowServer(
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
    """Forty steps an epoch, and steps enough for every kill."""
    return with_values(
        tiny_tree,
        {"train.windows_per_video": 20, "train.epochs": 1 + NUM_KILLS * STEPS_PER_KILL // 40},
    )


@pytest.fixture(scope="module")
def checkout(
    server: MlflowServer, tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    """The pipeline, run to its end while the server is killed and restarted."""
    made = Checkout(tmp_path_factory.mktemp("project") / "checkout", tree)
    made.environment["MLFLOW_TRACKING_URI"] = server.uri
    made.run("dvc", "repro", "flow")
    log = made.root / "train.log"
    with log.open("wb") as output:
        training = subprocess.Popen(
            ["dvc", "repro", "train"],
            cwd=made.root,
            env=made.environment,
            stdout=output,
            stderr=output,
        )
    wait_for_points(server, training, log)
    chance = random.Random(SEED)
    for number in range(NUM_KILLS):
        time.sleep(chance.uniform(0.0, 6.0))
        server.kill()
        time.sleep(chance.uniform(0.0, 3.0))
        server.start()
        server.wait()
        assert training.poll() is None, (
            f"ended before kill {number + 2}; STEPS_PER_KILL is too low\n{log.read_text()}"
        )
    assert training.wait(600) == 0, log.read_text()
    said = log.read_text()
    assert f"MLflow at {server.uri} is away: " in said
    assert f"MLflow at {server.uri} is back; what waited was sent" in said
    assert "the rest is in" not in said
    made.run("dvc", "repro")
    return made


def wait_for_points(server: MlflowServer, training: subprocess.Popen[bytes], log: Path) -> None:
    """Until the training has sent something."""
    client = mlflow.MlflowClient(server.uri)
    give_up = time.monotonic() + 120
    while True:
        experiments = [e.experiment_id for e in client.search_experiments()]
        if any("step/total" in run.data.metrics for run in client.search_runs(experiments)):
            return
        assert training.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def client(server: MlflowServer, checkout: Checkout) -> Any:
    return mlflow.MlflowClient(server.uri)


@pytest.fixture(scope="module")
def run(client: Any) -> Any:
    """The only run there is."""
    experiment = client.get_experiment_by_name("deepstab-gan")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def history(client: Any, run: Any, name: str) -> dict[int, float]:
    """Step to value; a point that is there twice is an error."""
    points = client.get_metric_history(run.info.run_id, name)
    assert set(Counter(point.step for point in points).values()) == {1}
    return {point.step: point.value for point in points}


def test_every_point_is_there_once(client: Any, run: Any, checkout: Checkout) -> None:
    with (checkout.root / "reports/history.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    num_steps = 40 * len(rows)
    for name in ("gan", "pixel", "smooth", "identity", "total", "discriminator"):
        points = history(client, run, f"step/{name}")
        assert sorted(points) == list(range(num_steps))
        means = np.array([points[step] for step in range(num_steps)]).reshape(-1, 40).mean(axis=1)
        np.testing.assert_allclose(means, [float(row[name]) for row in rows], rtol=1e-5)
    for name in ("psnr", "cropped_ssim"):
        points = history(client, run, name)
        assert sorted(points) == list(range(40, num_steps + 1, 40))
        written = [float(row[name]) for row in rows]
        np.testing.assert_allclose([points[step] for step in sorted(points)], written, rtol=1e-5)


def test_the_run_is_complete_and_in_postgres(
    run: Any, checkout: Checkout, postgres: Postgres, tree: dict[str, Any]
) -> None:
    assert run.info.status == "FINISHED"
    params = flatten(parse_params(tree, origin="test"))
    assert run.data.params == {key: str(value) for key, value in params.items()}
    measured = json.loads((checkout.root / "reports/metrics.json").read_text())
    assert measured["run_id"] == run.info.run_id
    for row in ("input", "stabilized"):
        for name in ("psnr", "jitter_px", "stability"):
            assert run.data.metrics[f"test/{row}/{name}"] == pytest.approx(
                measured[name][row], rel=1e-5
            )
    inputs = {given.dataset.name: given.dataset.digest for given in run.inputs.dataset_inputs}
    assert set(inputs) == {"flights-training", "flights-validation", "flights-test"}
    assert {digest[:16] for digest in inputs.values()} == {measured["data"]["manifest"]}

    database = psycopg2.connect(postgres.dsn)
    with database, database.cursor() as cursor:
        cursor.execute("SELECT run_uuid, status FROM runs")
        assert cursor.fetchall() == [(run.info.run_id, "FINISHED")]
    database.close()
    assert not (checkout.root / "mlflow.db").exists()


def test_artifacts_are_served(
    client: Any, run: Any, checkout: Checkout, artifact_store: Path, tmp_path: Path
) -> None:
    for folder, path in (
        ("checkpoints", "checkpoints/best_stab_gan.pth"),
        ("checkpoints", "checkpoints/final_stab_gan.pth"),
        ("plots", "reports/loss_curves.png"),
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


@pytest.mark.usefixtures("run")
def test_a_server_that_is_away_at_the_start_is_one_clear_line(
    checkout: Checkout, tree: dict[str, Any]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    checkout.environment["MLFLOW_TRACKING_URI"] = uri
    checkout.write_params(with_values(tree, {"train.lr_g": 0.0005}))
    before = time.monotonic()
    output = checkout.run("dvc", "repro", ok=False)
    assert time.monotonic() - before < 30  # dvc and torch take theirs; mlflow alone would retry
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: MLflow at {uri}: ")
    assert "start the server, correct or unset MLFLOW_TRACKING_URI" in line
    assert "Traceback" not in output
