"""What a stage reports to: a run of the tracking store, or nothing.

Parameters and data sets are sent at once and fail loudly: whoever starts an experiment is there to
read the error. Metrics, tags, artifacts and the final status go to an outbox on disk, which a
thread empties every few seconds: a server that goes away neither stops nor slows training, and
what is left when a process ends, or is killed, is sent by the next run with the same outbox.
"""

from __future__ import annotations

import logging
import math
import re
import shutil
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from deepstab.tracking import names
from deepstab.tracking.address import one_line
from deepstab.tracking.outbox import Destination, Outbox, Status, now_ms

Repeats = Literal["later", "changed"]
Plain = str | int | float | bool | list[str]

_log = logging.getLogger(__name__)

_SEND_EVERY_S = 5.0
_GRACE_S = 10.0  # how long the end of a run waits for a server that is away
_METRIC_NAME = re.compile(r"\w[\w\-. /:]*")


class Store(Destination, Protocol):
    """What a run needs of the store it is kept in."""

    uri: str
    shown_uri: str

    def probe(self) -> None: ...
    def send_params(self, run_id: str, params: Mapping[str, str]) -> None: ...
    def send_dataset(
        self, run_id: str, *, name: str, sha256: str, source: str, context: str
    ) -> None: ...
    def latest(self, run_id: str) -> dict[str, tuple[int, float]]: ...
    def remove_unfinished(self, run_id: str) -> None: ...


class Tracker:
    """What a stage reports to. This one does nothing: it is tracking switched off."""

    run_id: str = ""

    def log_params(self, params: Mapping[str, Plain]) -> None:
        """Record parameters, at once.

        Args:
            params: dotted key to value, as `config.flatten` returns them.

        Raises:
            TrackingError: a key already has another value in this run, or MLflow is away.
        """

    def log_dataset(self, name: str, *, sha256: str, source: str, context: str) -> None:
        """Record a data set the run reads, at once.

        Args:
            name: name shown in the UI.
            sha256: hex digest of the manifest.
            source: where the data came from, e.g. `kaggle:owner/name` or a folder.
            context: what it is used for: `training`, `validation` or `test`.

        Raises:
            TrackingError: MLflow is away.
        """

    def log_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Record metric points, timed now and sent within seconds.

        Args:
            values: name to value.
            step: position on the horizontal axis of the plots.

        Raises:
            ValueError: MLflow would refuse a name.
        """

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, sent within seconds."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file to the outbox, to be uploaded from there; the original may then change.

        Args:
            path: the file.
            folder: folder among the run's artifacts; empty: their root.

        Raises:
            OSError: the file cannot be copied.
            ValueError: the folder leads out of the run's artifacts.
        """

    def log_text(self, text: str, artifact: str) -> None:
        """Record a text as an artifact, named by its path among the artifacts."""

    def log_model(self, folder: Path) -> None:
        """Copy a saved MLflow model to the outbox, to become a LoggedModel with the folder's name.

        Raises:
            OSError: the folder cannot be copied.
        """

    def flush(self) -> bool:
        """Send what waits; whether everything was sent."""
        return True


class Run(Tracker):
    """An MLflow run this process reports to; `start_run` and `attach_run` make one."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        outbox: Path,
        monitors: list[Any],
        goes_on: Repeats | None = None,
    ) -> None:
        """Open the run's outbox.

        Args:
            store: where the run is.
            run_id: the run.
            outbox: folder of the outboxes of all runs.
            monitors: MLflow's, of the system's load.
            goes_on: the run was there before. What other processes had for it is sent first; of
                each metric `later` takes only steps that are new, of a training that goes on, and
                `changed` only new steps and other values, of a stage that is repeated.
        """
        self.run_id = run_id
        self._store, self._monitors = store, monitors
        self._outbox = Outbox.create(outbox, run_id=run_id, uri=store.uri)
        self._goes_on = goes_on
        self._latest: dict[str, tuple[int, float]] = {}
        if goes_on is not None:
            self._send_leftovers()
            self._latest = store.latest(run_id)
        self._away = False
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send, name="tracking", daemon=True)
        self._sender.start()

    def log_params(self, params: Mapping[str, Plain]) -> None:
        self._store.send_params(self.run_id, {key: str(value) for key, value in params.items()})

    def log_dataset(self, name: str, *, sha256: str, source: str, context: str) -> None:
        self._store.send_dataset(
            self.run_id, name=name, sha256=sha256, source=source, context=context
        )

    def log_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        for name in values:
            if not _METRIC_NAME.fullmatch(name):
                raise ValueError(
                    f"metric name {name!r}: use letters, digits and _ - . / : or space"
                )
        ms = now_ms()
        new = {name: v for name, v in values.items() if not self._is_there(name, step, float(v))}
        self._outbox.append(points=[(name, float(v), ms, step) for name, v in new.items()])

    def _is_there(self, name: str, step: int, value: float) -> bool:
        last_step, last_value = self._latest.get(name, (-1, math.nan))
        is_same = self._goes_on == "later" or value == last_value
        return step < last_step or (step == last_step and is_same)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._outbox.append(tags=tags.items())

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self._outbox.put(str(PurePosixPath(folder) / path.name), partial(shutil.copyfile, path))

    def log_text(self, text: str, artifact: str) -> None:
        self._outbox.put(artifact, lambda target: target.write_bytes(text.encode()))

    def log_model(self, folder: Path) -> None:
        self._outbox.put_model(folder)

    def flush(self) -> bool:
        uri = self._store.shown_uri
        try:
            self._store.probe()
            self._outbox.deliver(self._store)
        except Exception as error:  # of mlflow, its database, the network: none may stop training
            if not self._away:
                _log.warning(
                    "MLflow at %s is away: %s; the work goes on, what waits is kept in %s",
                    uri,
                    one_line(error, self._store.uri),
                    self._outbox.folder,
                )
            self._away = True
            return False
        if self._away:
            _log.warning("MLflow at %s is back; what waited was sent", uri)
        self._away = False
        return True

    def finish(self, status: Status) -> None:
        """Send what waits and close the run; what cannot be sent is left to the next run."""
        self._stop.set()
        self._sender.join(_GRACE_S)
        self._outbox.end(status)
        give_up = time.monotonic() + _GRACE_S
        while not (sent := self.flush()) and time.monotonic() < give_up:
            time.sleep(0.5)
        if not sent:
            _log.warning(
                "run %s is not complete at %s; the rest is in %s and is sent by the next run",
                self.run_id,
                self._store.shown_uri,
                self._outbox.folder,
            )
        self._outbox.release(remove=sent)

    def _send(self) -> None:
        self._send_leftovers()
        known = [step for k, (step, _) in self._latest.items() if k.startswith(names.SYSTEM_PREFIX)]
        num_samples = max(known, default=-1) + 1
        while not self._stop.wait(_SEND_EVERY_S):
            self._measure_system(num_samples)
            num_samples += 1
            self.flush()

    def _measure_system(self, step: int) -> None:
        try:
            for monitor in self._monitors:
                monitor.collect_metrics()
                values = {
                    names.SYSTEM_PREFIX + k: v for k, v in monitor.aggregate_metrics().items()
                }
                monitor.clear_metrics()
                self.log_metrics(values, step=step)
        except Exception as error:  # of a driver: it must not end the sending
            _log.warning("system metrics end here: %s", one_line(error, self._store.uri))
            self._monitors = []

    def _send_leftovers(self) -> None:
        """Send what earlier processes could not, for this run or another of the same store."""
        for folder in sorted(self._outbox.folder.parent.iterdir()):
            try:
                left = Outbox.adopt(folder, uri=self._store.uri, running=self.run_id)
                if left is None:
                    continue
                sent = False
                try:
                    self._store.remove_unfinished(left.run_id)
                    left.deliver(self._store)
                    sent = True
                finally:
                    left.release(remove=sent)
            except Exception as error:  # as in flush; what is left stays for the next run
                _log.warning(
                    "%s was not sent: %s; delete it if its run is gone",
                    folder,
                    one_line(error, self._store.uri),
                )
