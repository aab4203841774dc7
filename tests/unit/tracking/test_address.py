"""Passwords in the addresses of stores, which no message may repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepstab.errors import TrackingError
from deepstab.experiments.records import Records
from deepstab.tracking.address import one_line, shown
from deepstab.tracking.store import start_run

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("http://127.0.0.1:5000/mlflow", "http://127.0.0.1:5000/mlflow"),
        ("http://u:p@host:5000", "http://host:5000"),
        ("http://u:a@b@host", "http://host"),
        ("https://token@host/path", "https://host/path"),
        ("postgresql://u:p/w@host/db", "postgresql://host/db"),
        ("postgresql://u:p?w@host/db", "postgresql://..."),
        ("postgresql+psycopg2://host/db?password=x&sslmode=require", "postgresql+psycopg2://host/db"),
        ("http://host?token=x", "http://host"),
        ("http://host?token=x@y", "http://..."),
        ("sqlite:////home/me@work/mlflow.db?timeout=5", "sqlite:////home/me@work/mlflow.db"),
        ("mlruns", "mlruns"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_secrets(uri: str, safe: str) -> None:
    assert shown(uri) == safe


def test_an_error_is_told_without_them_in_any_form() -> None:
    uri = "postgresql://me:top%20s@cret@db.example.org/runs?sslkey=k3y"
    said = one_line(
        ValueError(
            f"{uri}: no host 'cret@db.example.org',\n top s@cret, top%20s, k3y, me, keyring"
        ),
        uri,
    )
    assert said == (
        "postgresql://db.example.org/runs: no host '***@db.example.org', ***, ***, ***, me, keyring"
    )
    assert len(one_line(ValueError("long " * 100), uri)) == 200
    assert one_line(ValueError(), uri) == "ValueError"


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:hunter2@open5esame@127.0.0.1:9",
        "http://127.0.0.1:9/?token=hunter2",
        "postgresql://me:hunter2@open5esame@127.0.0.1:9/runs",
        "postgresql://127.0.0.1:9/runs?user=me&password=hunter2",
        "postgresql://me:hunter2@127.0.0.1:port/runs",
        "unheard-of://me:hunter2@127.0.0.1/runs",
        "postgresql+unheardof://me:hunter2@127.0.0.1/runs",
    ],
)
def test_a_store_that_refuses_does_not_give_the_password_away(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DEEPSTAB_TRACKING", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with (
        pytest.raises(TrackingError) as training,
        start_run(experiment="tests", root=tmp_path, outbox=tmp_path / "outbox"),
    ):
        pytest.fail("a run was opened")
    with pytest.raises(TrackingError) as reading:
        Records(tmp_path)
    out, err = capfd.readouterr()
    for said in (str(training.value), str(reading.value), out, err):
        assert "hunter2" not in said
        assert "open5esame" not in said
    assert "MLflow at " in str(training.value)
