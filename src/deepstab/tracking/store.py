"""One MLflow run per experiment, which train starts and evaluate continues.

mlflow is imported only when a run is opened, so this module can be imported, and a stage can
report to a `Tracker`, where it is not installed.

Sending anything twice does no harm, so an answer lost on the way does none: MLflow's store keeps a
metric point once per (run, name, value, time, step), and an artifact replaces itself.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from deepstab.errors import TrackingError
from deepstab.tracking import names
from deepstab.tracking.address import is_http, shown
from deepstab.tracking.connection import (
    open_store,
    probe,
    refusals,
    tracking_uri,
)
from deepstab.tracking.outbox import Point, Status, Tag
from deepstab.tracking.provenance import read_provenance
from deepstab.tracking.run import Plain, Repeats, Run, Tracker

_log = logging.getLogger(__name__)

_DIGEST_LENGTH = 36  # the longest MLflow takes
_PARAM_LENGTH = 6000  # MLflow cuts longer values
_UNFINISHED = ".artifact.uploading."  # MLflow's name for a file until it is whole
_PARAMS_PER_REQUEST = 100  # the most MLflow takes


def project_root() -> Path:
    """The checkout that holds the MLflow store and the scratch folder.

    `dvc exp run --temp` and `--queue` run stages in a temporary copy and name the checkout they
    came from in DVC_ROOT; elsewhere it is the closest folder above with a dvc.yaml.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root)
    here = Path.cwd()
    return next(
        (folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), here
    )


class Training(NamedTuple):
    """What a run is opened for, perhaps again: its id, which becomes a tag, and its parameters."""

    id: str
    params: Mapping[str, Plain]


@contextmanager
def start_run(
    *,
    experiment: str,
    root: Path,
    outbox: Path,
    tags: Mapping[str, str] | None = None,
    system_metrics: bool = False,
    training: Training | None = None,
) -> Iterator[Tracker]:
    """Open a run; it ends FINISHED, FAILED on an exception, or KILLED on an interrupt.

    Tags say which commit, branch and DVC experiment it is, and which Python, processor and GPU it
    ran on; uncommitted changes and packages are among its artifacts.
    DEEPSTAB_TRACKING=off in the environment gives a `Tracker` that does nothing.

    Args:
        experiment: name of the MLflow experiment, made if it is new.
        root: project root, see `project_root`.
        outbox: folder for what waits to be sent; the same for all stages, outside DVC's outputs.
        tags: further tags. The run is named as `names.NAME_TAG` says among them, else as
            `Provenance.name`, else as MLflow makes one up.
        system_metrics: also record processor, memory and GPU load every few seconds.
        training: where an interrupted process has opened a run for the same, this goes on with it,
            if it has no other values for the parameters; what it has is not recorded again.

    Raises:
        TrackingError: mlflow is not installed, or its store is away or refuses.
    """
    if os.environ.get("DEEPSTAB_TRACKING") == "off":
        yield Tracker()
        return
    uri, provenance = tracking_uri(root), read_provenance()
    with refusals(uri):
        store = _Store(uri, experiment=experiment, root=root)
        monitors = _load_monitors() if system_metrics else []
        earlier = None if training is None else store.reopen_for(training)
        named = {names.NAME_TAG: provenance.name} if provenance.name else {}
        # A tag from the start: whoever is killed before it knows the run finds it by that.
        known = {} if training is None else {names.TRAINING_TAG: training.id}
        run_id = earlier or store.create_run({**named, **provenance.tags, **known, **(tags or {})})
        goes_on: Repeats | None = None if earlier is None else "later"
    run = Run(store, run_id, outbox=outbox, monitors=monitors, goes_on=goes_on)
    with _closing(run):
        for artifact, text in provenance.texts.items():
            if goes_on is None or not store.has_artifact(run_id, artifact):
                run.log_text(text, artifact)
        yield run


@contextmanager
def attach_run(
    run_id: str,
    *,
    params: Mapping[str, Plain],
    experiment: str,
    root: Path,
    outbox: Path,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Tracker]:
    """Continue the run of an earlier stage, and log parameters to it.

    A run's parameters never change, and DVC may restore a stage's outputs without its run. So
    where the run has another value for one of the parameters (only evaluation settings changed)
    or is not in this store (outputs pulled into a clone), a new run is opened that names the
    earlier one in its tag `names.TRAINED_IN_TAG`.

    Args:
        run_id: as the earlier stage's `Tracker.run_id` had it; empty: that stage was not tracked,
            and this one is not either.
        params: all parameters, as for `Tracker.log_params`.
        experiment: as for `start_run`, like the rest.

    Raises:
        TrackingError: mlflow is not installed, or its store is away or refuses.
    """
    if not run_id or os.environ.get("DEEPSTAB_TRACKING") == "off":
        yield Tracker()
        return
    uri = tracking_uri(root)
    with refusals(uri):
        store = _Store(uri, experiment=experiment, root=root)
        reopened = store.reopen(run_id, params)
    if reopened:
        with _closing(Run(store, run_id, outbox=outbox, monitors=[], goes_on="changed")) as run:
            run.set_tags(tags or {})
            run.log_params(params)
            yield run
    else:
        tags = {names.TRAINED_IN_TAG: run_id, **(tags or {})}
        with start_run(experiment=experiment, root=root, outbox=outbox, tags=tags) as new:
            new.log_params(params)
            yield new


@contextmanager
def _closing(run: Run) -> Iterator[Run]:
    try:
        yield run
    except KeyboardInterrupt:
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


class _Store:
    """The MLflow store at a URI, seen to work when it is opened."""

    def __init__(self, uri: str, *, experiment: str, root: Path) -> None:
        self.uri, self.shown_uri = uri, shown(uri)
        self._client, self._experiment_id = open_store(uri, experiment=experiment, root=root)

    def probe(self) -> None:
        """Raise within seconds if nothing answers at an http URI."""
        probe(self.uri)

    def create_run(self, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment_id, tags=dict(tags))
        return str(run.info.run_id)

    def reopen_for(self, training: Training) -> str | None:
        """Set the last run that was opened for a training running again; its id, None without."""
        found = self._client.search_runs(
            [self._experiment_id],
            filter_string=f"tags.`{names.TRAINING_TAG}` = '{training.id}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        run_ids = [str(run.info.run_id) for run in found]
        return next((id_ for id_ in run_ids if self.reopen(id_, training.params)), None)

    def reopen(self, run_id: str, params: Mapping[str, Plain]) -> bool:
        """Set a run running again, if it is here and has no other values for the parameters."""
        if not self._can_hold(run_id, {key: str(value) for key, value in params.items()}):
            _log.info("run %s cannot continue at %s: a new one is opened", run_id, self.shown_uri)
            return False
        self._client.update_run(run_id, status="RUNNING")
        return True

    def _can_hold(self, run_id: str, params: Mapping[str, str]) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return False
            raise
        known = run.data.params
        same = all(known.get(k, v[:_PARAM_LENGTH]) == v[:_PARAM_LENGTH] for k, v in params.items())
        return bool(same and run.info.lifecycle_stage == "active")

    def has_artifact(self, run_id: str, artifact: str) -> bool:
        with refusals(self.uri):
            found = self._client.list_artifacts(run_id, str(PurePosixPath(artifact).parent))
        return artifact in {file.path for file in found}

    def remove_unfinished(self, run_id: str) -> None:
        uri = self._client.get_run(run_id).info.artifact_uri
        if uri.startswith("file:"):  # elsewhere the server writes, and is not killed with us
            from mlflow.utils.file_utils import local_file_uri_to_path

            for path in Path(local_file_uri_to_path(uri)).rglob(f"{_UNFINISHED}*"):
                path.unlink(missing_ok=True)

    def latest(self, run_id: str) -> dict[str, tuple[int, float]]:
        with refusals(self.uri):
            self.probe()
            latest = self._client.get_run(run_id).data.to_proto().metrics
            return {metric.key: (metric.step, metric.value) for metric in latest}

    def send_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in params.items()]
        with refusals(self.uri):
            self.probe()
        with refusals(self.uri, remedy="a run's parameters never change: start a new run"):
            for first in range(0, len(entries), _PARAMS_PER_REQUEST):
                chunk = entries[first : first + _PARAMS_PER_REQUEST]
                self._client.log_batch(run_id, params=chunk, synchronous=True)

    def send_dataset(
        self, run_id: str, *, name: str, sha256: str, source: str, context: str
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        is_url = is_http(source)
        dataset = Dataset(
            name,
            sha256[:_DIGEST_LENGTH],
            source_type="http" if is_url else "local",
            source=json.dumps({"url" if is_url else "uri": source}),
            profile=json.dumps({"sha256": sha256}),
        )
        inputs = [DatasetInput(dataset, [InputTag(names.CONTEXT_TAG, context)])]
        with refusals(self.uri):
            self._client.log_inputs(run_id, inputs)

    def send_records(self, run_id: str, points: list[Point], tags: list[Tag]) -> None:
        from mlflow.entities import Metric

        if points:
            metrics = [Metric(*point) for point in points]
            self._client.log_batch(run_id, metrics=metrics, synchronous=True)
        for key, value in tags:
            self._client.set_tag(run_id, key, value, synchronous=True)

    def send_status(self, run_id: str, status: Status, end_ms: int) -> None:
        self._client.set_terminated(run_id, status, end_ms)

    def send_file(self, run_id: str, path: Path, folder: str) -> None:
        self._client.log_artifact(run_id, str(path), folder or None)

    def send_model(self, run_id: str, folder: Path) -> None:
        from deepstab.tracking.model import send_model  # torch: a command must not wait for it

        send_model(self._client, run_id, folder)


def _load_monitors() -> list[Any]:
    """What measures processor, memory and GPU load."""
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    except ModuleNotFoundError:
        raise TrackingError("system metrics need psutil; pip install psutil") from None
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    monitors: list[Any] = [CPUMonitor()]
    with suppress(ImportError, RuntimeError):  # no GPU, or no nvidia-ml-py
        monitors.append(GPUMonitor())
    return monitors
