"""What runs left behind in the MLflow store, read back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deepstab.errors import TrackingError
from deepstab.tracking import names
from deepstab.tracking.address import shown
from deepstab.tracking.connection import connect, refusals, tracking_uri

# MLflow's codes for what is not there.
MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"})


@dataclass(frozen=True)
class Record:
    """One run: its name, status, start (ms since 1970), and all it logged.

    `datasets` is context (`training`, ...) to name and SHA-256 of the manifest.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    datasets: dict[str, tuple[str, str]]

    @property
    def trained_in(self) -> str:
        """The run that trained what this one evaluates: itself, or an earlier one."""
        return self.tags.get(names.TRAINED_IN_TAG, self.run_id)


class Records:
    """The runs of the store that MLFLOW_TRACKING_URI names, or of the project's own."""

    def __init__(self, root: Path) -> None:
        """Connect.

        Raises:
            TrackingError: there is no store, or it is away.
        """
        self.uri = tracking_uri(root)
        self.client = connect(self.uri)

    @property
    def shown_uri(self) -> str:
        """The store's address, without a password."""
        return shown(self.uri)

    def find(self, run: str) -> Record:
        """The run of an id or a name.

        Raises:
            TrackingError: there is none, or several have the name.
        """
        from mlflow.exceptions import MlflowException

        with refusals(self.uri):
            try:
                return _record(self.client.get_run(run))
            except MlflowException as error:
                if error.error_code not in MISSING:
                    raise
            named = self._named(run)
        if not named:
            raise TrackingError(
                f"no run {run!r} at {self.shown_uri}; give an id or a name that its MLflow UI shows"
            )
        if len(named) > 1:
            ids = ", ".join(found.info.run_id for found in named)
            raise TrackingError(f"{len(named)} runs are named {run!r}: {ids}; give one of these")
        return _record(named[0])

    def fetch(self, run_id: str, artifact: str, folder: Path) -> Path | None:
        """Copy an artifact of a run into a folder, None if the run has none of this name."""
        parent = PurePosixPath(artifact).parent.as_posix()
        with refusals(self.uri):
            listed = self.client.list_artifacts(run_id, None if parent == "." else parent)
            if artifact not in {entry.path for entry in listed}:
                return None
            return Path(self.client.download_artifacts(run_id, artifact, str(folder)))

    def read_text(self, run_id: str, artifact: str) -> str | None:
        """An artifact's text, None if the run has none of this name."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.fetch(run_id, artifact, Path(folder))
            # As bytes: a diff keeps its line ends.
            return None if path is None else path.read_bytes().decode("utf-8")

    @contextmanager
    def checkpoint(self, record: Record, artifact: str = names.BEST_FILE) -> Iterator[Path]:
        """A checkpoint of a run, or of the one it continues, as a file for the block.

        Raises:
            TrackingError: the run has none.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = self.fetch(record.trained_in, artifact, Path(folder))
            if path is None:
                raise TrackingError(
                    f"run {record.run_id} ({record.status}) has no {artifact}; "
                    "choose a run whose training ended"
                )
            yield path

    def _named(self, name: str) -> list[Any]:
        # MLflow knows no escapes, but either quote.
        quoted = f'"{name}"' if "'" in name else f"'{name}'"
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, f"attributes.run_name = {quoted}"))


def _record(run: Any) -> Record:
    datasets = {}
    for given in run.inputs.dataset_inputs:
        context = next((t.value for t in given.tags if t.key == names.CONTEXT_TAG), "")
        profile = json.loads(given.dataset.profile or "{}")
        datasets[context] = (given.dataset.name, profile.get("sha256", given.dataset.digest))
    return Record(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        name=run.info.run_name or "",
        status=run.info.status,
        start_ms=run.info.start_time,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        datasets=datasets,
    )
