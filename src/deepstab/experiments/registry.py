"""The model registry: which run's model is the champion, and the weights behind a model's URI."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepstab.config import RegistryParams
from deepstab.errors import RegistryError
from deepstab.experiments.records import MISSING, Record, Records
from deepstab.tracking import names
from deepstab.tracking.connection import refusals

CHAMPION = "champion"
_URI = re.compile(
    r"runs:/(?P<run>[\w-]+)"
    r"|models:/(?P<name>[^/@]+)(@(?P<alias>[\w-]+)|/(?P<version>\d+))"
)


@dataclass(frozen=True)
class Promotion:
    """What became of a run's model: its version, whether it is champion now, and why."""

    version: str
    is_champion: bool
    reason: str


@contextmanager
def local_weights(name: str | None, *, root: Path) -> Iterator[str | None]:
    """Weights by a name that `load_weights` takes, those of the store as a file for the block.

    Raises:
        TrackingError: as `fetch_checkpoint`.
    """
    if name is not None and name.startswith(("models:/", "runs:/")):
        with fetch_checkpoint(name, root=root) as path:
            yield str(path)
    else:
        yield name


@contextmanager
def fetch_checkpoint(uri: str, *, root: Path) -> Iterator[Path]:
    """The checkpoint behind `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN`.

    Yields:
        A .pth file that lives as long as the block.

    Raises:
        RegistryError: the URI is none of these, or there is no such model.
        TrackingError: there is no such run, or the store is away.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise RegistryError(
            f"weights {uri!r} are named wrongly; write models:/NAME@ALIAS, models:/NAME/VERSION "
            "or runs:/RUN_ID"
        )
    records = Records(root)
    if parts["run"]:
        with records.checkpoint(records.find(parts["run"])) as path:
            yield path
        return
    found = _find_version(records, parts["name"], alias=parts["alias"], number=parts["version"])
    if found is None:
        raise RegistryError(
            f"{uri} is not in the registry at {records.shown_uri}; deepstab promote RUN "
            "registers a run's model and makes the best one champion"
        )
    with tempfile.TemporaryDirectory() as folder:
        with refusals(records.uri):
            path = _download(records, found, Path(folder))
        yield path


def promote(records: Records, record: Record, *, rule: RegistryParams, force: bool) -> Promotion:
    """Register a run's model, and make it champion if it beats the present one.

    Args:
        records: the store.
        record: a finished run.
        rule: what is compared, and how much better it must be.
        force: make it champion without comparing.

    Raises:
        RegistryError: the run has no model or was not evaluated, or the champion was measured on
            other test data and so does not compare.
    """
    with refusals(records.uri):
        model_id = _model_of(records, record)
        value = _measured(record, rule)
        champion = _find_version(records, rule.name, alias=CHAMPION)
        wins, reason = True, f"{rule.metric} {value:.6g}"
        if champion is None:
            reason += "; there was no champion"
        elif champion.run_id == record.run_id:
            reason += "; it was the champion before"
        elif force:
            reason += "; forced"
        else:
            present = records.find(champion.run_id)
            _check_comparable(record, present)
            wins, reason = compare(value, _measured(present, rule), rule)
            reason += f", version {champion.version} of run {present.run_id}"
        version = _register(records, rule.name, record, model_id)
        if wins:
            records.client.set_registered_model_alias(rule.name, CHAMPION, version)
        return Promotion(version, wins, reason)


def compare(value: float, champions: float, rule: RegistryParams) -> tuple[bool, str]:
    """Whether a value beats the champion's by the rule, and that in words."""
    gain = champions - value if rule.direction == "lower" else value - champions
    wins = gain > 0 and gain >= rule.min_improvement
    verb = "beats" if wins else "does not beat"
    return wins, (
        f"{rule.metric} {value:.6g} {verb} {champions:.6g} "
        f"({rule.direction} is better, by at least {rule.min_improvement:g})"
    )


def _check_comparable(record: Record, present: Record) -> None:
    mine, theirs = (run.datasets.get(names.TEST_DATA, ("", ""))[1] for run in (record, present))
    if not mine or mine != theirs:
        raise RegistryError(
            f"run {record.run_id} was tested on other data (manifest {mine[:12] or 'unknown'}) "
            f"than the champion, run {present.run_id} (manifest {theirs[:12] or 'unknown'}); "
            "evaluate both on the same data, or use --force"
        )


def _measured(record: Record, rule: RegistryParams) -> float:
    prefix = names.STABILIZED_PREFIX
    value = record.metrics.get(f"{prefix}{rule.metric}", math.nan)
    if not math.isfinite(value):
        known = sorted(n.removeprefix(prefix) for n in record.metrics if n.startswith(prefix))
        raise RegistryError(
            f"run {record.run_id} ({record.status}) has no finite {prefix}{rule.metric}, which "
            f"registry.metric asks for; it has {', '.join(known) or 'no evaluation'}"
        )
    return value


def _model_of(records: Records, record: Record) -> str:
    found = records.client.search_logged_models(
        [record.experiment_id], filter_string=f"source_run_id = '{record.run_id}'"
    )
    ready = [model for model in found if str(model.status) == "READY"]
    if not ready:
        raise RegistryError(
            f"run {record.run_id} ({record.status}) has no model in the store; "
            "promote one whose evaluate stage finished with tracking.log_model: true"
        )
    return str(max(ready, key=lambda model: model.creation_timestamp).model_id)


def _register(records: Records, name: str, record: Record, model_id: str) -> str:
    """The version of a model, registered unless it was before."""
    import mlflow

    for version in _versions(records, name):
        if version.source == f"models:/{model_id}":
            return str(version.version)
    # Only the fluent call links the version with its model; it talks on stderr, and takes the store
    # from the process, where it would stay in the environment of all that is started later.
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(records.uri)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            registered = mlflow.register_model(f"models:/{model_id}", name)
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it
    return str(registered.version)


def _versions(records: Records, name: str) -> list[Any]:
    quoted = name.replace("'", "''")
    return list(records.client.search_model_versions(f"name = '{quoted}'"))


def _find_version(
    records: Records, name: str, *, alias: str | None = None, number: str | None = None
) -> Any | None:
    from mlflow.exceptions import MlflowException

    with refusals(records.uri):
        try:
            if alias is not None:
                return records.client.get_model_version_by_alias(name, alias)
            return records.client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code in MISSING:
                return None
            raise


def _download(records: Records, version: Any, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    return Path(
        download_artifacts(
            artifact_uri=f"models:/{version.name}/{version.version}/{names.MODEL_CHECKPOINT_FILE}",
            dst_path=str(folder),
            tracking_uri=records.uri,
            registry_uri=records.uri,
        )
    )
