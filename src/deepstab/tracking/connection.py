"""How MLflow's store is reached: which one it is, whether it is there, what its refusals mean."""

from __future__ import annotations

import logging
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from deepstab.errors import TrackingError
from deepstab.tracking import names
from deepstab.tracking.address import is_http, one_line, shown
from deepstab.tracking.database import (
    ARTIFACTS_FOLDER,
    ailment,
    artifacts_of,
    follow_checkout,
    made,
    sqlite_file,
    sqlite_uri,
)

# What the UI shows of a new experiment first.
_NOTE = """\
Each run is one training and what its best checkpoint does on test videos.

- Choose *Model training* at the top left, once: MLflow opens for language models.
- To compare, sort by `test/stabilized/jitter_ratio_geomean` (less is better) and show
  `params.changed`; the validation curves are `psnr` and `motion_error`, one point an epoch.
- A run's own page has a table of all rows, and what makes it again.
"""
_PROBE_TIMEOUT_S = 4.0
_DATABASE = re.compile(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:")
_OTHERWISE = "correct or unset MLFLOW_TRACKING_URI, or set DEEPSTAB_TRACKING=off"
_MLFLOW_SETTINGS = {
    # The outbox tries again; mlflow's own four minutes of retries would hold up the end of a run.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite database in the project root.

    A relative SQLite path counts from the root, wherever the stage runs.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = sqlite_file(uri)
    return uri if database is None or database.is_absolute() else sqlite_uri(root / database)


def connect(uri: str) -> Any:
    """Open an existing store to read what is in it, and nothing is made where there is none.

    Returns:
        An `mlflow.MlflowClient`.

    Raises:
        TrackingError: mlflow is not installed, or there is no such store, or it is away.
    """
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise TrackingError(
            f"there is no MLflow database {database}; run the pipeline first, call from the "
            "project's folder, or set MLFLOW_TRACKING_URI"
        )
    with refusals(uri):
        probe(uri)
        client = _load_client()
        if _DATABASE.match(uri):
            _connect_once(uri)
        opened = client(uri, uri)
        if database is not None:
            follow_checkout(database)
        return opened


def open_store(uri: str, *, experiment: str, root: Path) -> tuple[Any, str]:
    """Open a store to write to it; store and experiment are made where there are none.

    Args:
        uri: as `tracking_uri` returns it.
        experiment: name of the experiment.
        root: project root, where artifacts go if the store has no place of its own for them.

    Returns:
        An `mlflow.MlflowClient`, and the experiment's id.
    """
    probe(uri)
    client, database = _load_client(), sqlite_file(uri)
    with made(database) if database else nullcontext():
        if _DATABASE.match(uri):
            _prepare_database(uri, experiment=experiment, root=root)
        if database is not None:
            follow_checkout(database)
        opened = client(uri)
        return opened, _get_or_create(opened, experiment)


def _get_or_create(client: Any, experiment: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            return client.create_experiment(experiment, tags={names.NOTE_TAG: _NOTE})
        except MlflowException:  # perhaps another process was faster
            found = client.get_experiment_by_name(experiment)
            if found is None:
                raise
    return str(found.experiment_id)


def _load_client() -> Any:
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"mlflow is not installed ({error}); pip install 'mlflow>=3.13,!=3.18.0', or set "
            "DEEPSTAB_TRACKING=off"
        ) from None
    for chatter in ("mlflow", "alembic"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    return MlflowClient


def probe(uri: str) -> None:
    """Raise within seconds if nothing answers at an http URI."""
    if not is_http(uri):
        return
    try:
        place = urllib.parse.urlsplit(uri)
        health = place._replace(
            netloc=place.netloc.rpartition("@")[2],
            path=f"{place.path.rstrip('/')}/health",
            query="",
            fragment="",
        )
        urllib.request.urlopen(health.geturl(), timeout=_PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in {502, 503, 504}:  # any other answer is one of a server that is there
            raise
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # mlflow has its own certificates
            raise


def _connect_once(uri: str) -> None:
    """Raise at once if a database is away: mlflow itself would try for minutes."""
    from sqlalchemy import create_engine

    create_engine(uri).connect().close()


def _prepare_database(uri: str, *, experiment: str, root: Path) -> None:
    """Make the tables, and the experiments with artifacts beside them: mlflow takes the cwd."""
    from mlflow.entities import ExperimentTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _connect_once(uri)
    database = sqlite_file(uri)
    artifacts = artifacts_of(database) if database else root.absolute() / ARTIFACTS_FOLDER
    store: Any = SqlAlchemyStore(uri, artifacts.as_uri())
    if store.get_experiment_by_name(experiment) is None:
        store.create_experiment(experiment, tags=[ExperimentTag(names.NOTE_TAG, _NOTE)])


@contextmanager
def refusals(uri: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever MLflow, its database or the network raise into a `TrackingError`.

    Args:
        uri: of the store.
        remedy: what helps where the store itself is as it should be.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # of mlflow, its database, the network, the disk
        database = sqlite_file(uri)
        if database is not None and (found := ailment(database)):
            raise TrackingError(found) from error
        remedy = remedy or (_OTHERWISE if database else f"start the server, {_OTHERWISE}")
        raise TrackingError(f"MLflow at {shown(uri)}: {one_line(error, uri)}; {remedy}") from error
