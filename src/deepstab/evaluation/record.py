"""The files that an evaluation leaves, and what of it goes into the MLflow run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepstab.data.manifest import Manifest
from deepstab.evaluation.measure import Measured
from deepstab.evaluation.results import (
    MAX_FRAMES,
    NUM_SHOWN,
    Evaluation,
    file_name,
    mean_measures,
    metrics_json,
    per_video_csv,
    scores_json,
    worst_first,
)
from deepstab.models.checkpoints import Checkpoint
from deepstab.stabilization.before_after import frame_strip, save_image, write_player
from deepstab.tracking import names
from deepstab.tracking.lockfile import read_lock
from deepstab.tracking.provenance import read_provenance
from deepstab.tracking.run import Tracker

STRIP_NAME = "side_by_side.png"

# Of the untrained network MLflow's charts get these alone, and nothing of what no parameter
# changes; the note and the report have all.
_COMPARED = ("psnr", "cropped_ssim", "jitter_px", "stability")


def describe(measured: Sequence[Measured], checkpoint: Checkpoint, *, run_id: str) -> Evaluation:
    """Put the test videos' results together with the run, the checkpoint, commit and machine.

    Args:
        measured: the test videos.
        checkpoint: that was measured.
        run_id: the run that the figures go to; empty: not tracked.
    """
    return Evaluation(
        run_id=run_id,
        trained_in=checkpoint.run_id,
        epoch=checkpoint.epoch,
        facts=read_provenance().tags,
        videos=tuple(video.result for video in measured),
    )


def log_origin(tracker: Tracker, *, params_file: Path, lock: Path, checkpoint: Path) -> None:
    """Log what a rerun needs: an evaluation may be a run of its own, not that of its training.

    Args:
        tracker: the run.
        params_file: logged as it is.
        lock: dvc.lock, logged as far as it led to the checkpoint.
        checkpoint: that is measured.
    """
    tracker.log_text(params_file.read_bytes().decode(), names.PARAMS_FILE)
    if locked := read_lock(lock, checkpoint=checkpoint):
        tracker.log_text(locked, names.LOCK_FILE)


def write_files(
    measured: Sequence[Measured],
    evaluation: Evaluation,
    manifest: Manifest,
    *,
    raw: Path,
    reports: Path,
) -> None:
    """Write all figures, a player of each of the worst videos, and frames side by side.

    Args:
        measured: the test videos, in the order of the evaluation's.
        evaluation: their results.
        manifest: of the data.
        raw: folder the manifest's paths are relative to.
        reports: folder to write to.
    """
    means = mean_measures(evaluation.videos)
    evaluation.save(reports / Path(names.MEASURES_FILE).name)
    metrics = metrics_json(means, manifest, run_id=evaluation.run_id)
    (reports / Path(names.METRICS_FILE).name).write_text(metrics)
    (reports / "scores.json").write_text(scores_json(means))
    (reports / Path(names.PER_VIDEO_FILE).name).write_text(per_video_csv(evaluation.videos))
    strip = frame_strip({one.result.name: one.frames for one in measured[:NUM_SHOWN]})
    save_image(strip, reports / STRIP_NAME)
    unstable = {pair.name: raw / pair.unstable.path for pair in manifest.pairs}
    for video in worst_first(evaluation.videos)[:NUM_SHOWN]:
        write_player(
            unstable[video.name],
            video.thetas["stabilized"],
            reports / names.VIDEOS_FOLDER / f"{file_name(video.name)}.mp4",
            max_frames=MAX_FRAMES,
        )


def log_files(tracker: Tracker, evaluation: Evaluation, manifest: Manifest, reports: Path) -> None:
    """Log the test data, the mean figures of the network, and what `write_files` wrote."""
    tracker.log_dataset(
        f"{manifest.source}-{names.TEST_DATA}",
        sha256=manifest.digest(),
        source=manifest.source,
        context=names.TEST_DATA,
    )
    means = mean_measures(evaluation.videos)
    for row, measures in (("untrained", _COMPARED), ("stabilized", tuple(means))):
        values = {f"{names.TEST_PREFIX}{row}/{name}": means[name][row] for name in measures}
        tracker.log_metrics(values, step=0)
    for file in (names.METRICS_FILE, names.PER_VIDEO_FILE, names.MEASURES_FILE):
        tracker.log_artifact(reports / Path(file).name, names.REPORTS_FOLDER)
    tracker.log_artifact(reports / STRIP_NAME, names.PLOTS_FOLDER)
    for path in sorted((reports / names.VIDEOS_FOLDER).iterdir()):
        tracker.log_artifact(path, names.VIDEOS_FOLDER)
