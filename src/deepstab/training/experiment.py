"""One experiment: a training as a run of the tracking store, with all that describes it."""

from __future__ import annotations

import logging
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from deepstab.config import Params, flatten, load_params
from deepstab.data.manifest import MANIFEST_NAME, Manifest
from deepstab.data.shards import ShardIndex, verify_shards
from deepstab.files import remove_partials
from deepstab.models import checkpoints
from deepstab.models.vgg19 import VGG19_NAME
from deepstab.tracking import names
from deepstab.tracking.durations import recall_durations
from deepstab.tracking.ended import forget_entered, goes_on, keep_until_entered
from deepstab.tracking.run import Tracker
from deepstab.tracking.store import Training, start_run
from deepstab.training import processes
from deepstab.training.fingerprint import fingerprint
from deepstab.training.loop import TrainingResult, train
from deepstab.training.state import StateFile

log = logging.getLogger(__name__)

_SCRATCH, _LOCK = ".scratch", Path("dvc.lock")


def run_experiment(
    params_file: Path, *, raw: Path, shards: Path, destination: Path, root: Path
) -> TrainingResult | None:
    """Train both networks in a run, which gets parameters, data, figures and checkpoints.

    An interrupted training goes on in the run it had, or in a new one where that is gone; so does
    one that had ended where DVC was interrupted before it entered that. Where several processes
    train together, the run and all files are the main one's.

    Args:
        params_file: the parameters; the run keeps them value by value, and the file as it is.
        raw: folder of the videos, the manifest and the VGG19 weights.
        shards: folder of the flow cache.
        destination: folder of the checkpoints.
        root: project root, which holds the store and the scratch folder.

    Returns:
        The result; None in processes that are not the main one.

    Raises:
        ParameterError, DataError, ShardError: what the training reads cannot be used.
        TrainingError: as `train`.
        TrackingError: the store is away or refuses.
    """
    started = time.monotonic()
    params, manifest = load_params(params_file), Manifest.load(raw / MANIFEST_NAME)
    index = ShardIndex.load(shards)
    with processes.together(params.train.device):
        main = processes.is_main()
        processes.from_main(lambda: verify_shards(index))
        state = StateFile(root / _SCRATCH / "train", fingerprint(params, index))
        processes.from_main(lambda: _tidy_up(state.folder, destination))
        run = _start_run(params, manifest, state, root) if main else nullcontext(Tracker())
        with run as tracker:
            _log_inputs(tracker, params, manifest)
            tracker.log_text(params_file.read_bytes().decode(), names.PARAMS_FILE)
            tracker.log_artifact(raw / MANIFEST_NAME, names.DATA_FOLDER)
            result = train(
                index,
                params=params,
                vgg19=raw / VGG19_NAME,
                destination=destination,
                state=state,
                tracker=tracker,
            )
            if not main:
                return None
            _log_result(tracker, result, destination)
            digests = {"download": manifest.digest(), "flow": index.digest()}
            durations = recall_durations(digests, scratch=root / _SCRATCH)
            duration_s = time.monotonic() - started + result.earlier_s
            tracker.log_metrics({**durations, names.TRAIN_DURATION: duration_s}, step=0)
        _end(state, destination / names.BEST_NAME)
    return result


def _tidy_up(state: Path, checkpoints_folder: Path) -> None:
    """Remove what killed trainings have begun to write, and the states that nobody needs."""
    for folder in (checkpoints_folder, state):
        remove_partials(folder, owner="")
    forget_entered(state.parent, lock=_LOCK, output=Path(names.BEST_FILE))
    if goes_on(state):
        log.info("this training had ended, but %s has not its result: it goes on", _LOCK)


def _end(state: StateFile, best: Path) -> None:
    """Forget the training; where DVC runs it, when its result is seen in the lock."""
    if "DVC_STAGE" in os.environ:
        keep_until_entered(state.folder, best)
    else:
        state.remove()


def _start_run(
    params: Params, manifest: Manifest, state: StateFile, root: Path
) -> AbstractContextManager[Tracker]:
    return start_run(
        experiment=params.tracking.experiment,
        root=root,
        outbox=root / _SCRATCH / "outbox",
        tags={
            names.DATA_SOURCE_TAG: manifest.source,
            names.DATA_GENERATED_TAG: str(manifest.generated),
            names.PROCESSES_TAG: str(processes.count()),
        },
        system_metrics=True,
        training=Training(state.training_id(), flatten(params)),
    )


def _log_inputs(tracker: Tracker, params: Params, manifest: Manifest) -> None:
    tracker.log_params(flatten(params))
    for context in (names.TRAINING_DATA, names.VALIDATION_DATA):
        tracker.log_dataset(
            f"{manifest.source}-{context}",
            sha256=manifest.digest(),
            source=manifest.source,
            context=context,
        )


def _log_result(tracker: Tracker, result: TrainingResult, folder: Path) -> None:
    best = {"epoch": result.best.epoch, **result.best.validation}
    tracker.log_metrics({names.BEST_PREFIX + name: value for name, value in best.items()}, step=0)
    for name in (names.BEST_NAME, names.FINAL_NAME):
        tracker.log_artifact(folder / name, names.CHECKPOINTS_FOLDER)
    final = checkpoints.load(folder / names.FINAL_NAME)
    tracker.set_tags(
        {
            names.EPOCH_TAG: str(result.best.epoch),
            names.GENERATOR_TAG: result.best.generator_sha256(),
            names.FINAL_GENERATOR_TAG: final.generator_sha256(),
        }
    )
