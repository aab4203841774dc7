"""DVC stage: measure the best checkpoint on the test videos; continues the MLflow run."""

import time
from pathlib import Path

from deepstab.errors import run_stage, stage_imports

with stage_imports():
    from deepstab.config import flatten, load_params
    from deepstab.data.manifest import Manifest
    from deepstab.evaluation.corrections import Inputs
    from deepstab.evaluation.measure import measure_videos
    from deepstab.evaluation.record import describe, log_files, log_origin, write_files
    from deepstab.models import checkpoints
    from deepstab.tracking import names
    from deepstab.tracking.ended import forget_entered
    from deepstab.tracking.model import log_generator
    from deepstab.tracking.store import attach_run, project_root

BEST, REPORTS = Path(names.BEST_FILE), Path(names.REPORTS_FOLDER)
INPUTS = Inputs(raw=Path("data/raw"), shards=Path("data/shards"), checkpoint=BEST)


def main() -> None:
    started = time.monotonic()
    params, best = load_params(Path("params.yaml")), checkpoints.load(BEST)
    manifest = Manifest.load(INPUTS.raw / "manifest.json")
    scratch = project_root() / ".scratch"
    forget_entered(scratch / "train", lock=Path("dvc.lock"), output=BEST)
    with attach_run(
        best.run_id,
        params=flatten(params),
        experiment=params.tracking.experiment,
        root=project_root(),
        outbox=scratch / "outbox",
    ) as run:
        log_origin(run, params_file=Path("params.yaml"), lock=Path("dvc.lock"), checkpoint=BEST)
        measured = measure_videos(manifest.of_split("test"), INPUTS, params.evaluate)
        evaluation = describe(measured, best, run_id=run.run_id)
        write_files(measured, evaluation, manifest, raw=INPUTS.raw, reports=REPORTS)
        log_files(run, evaluation, manifest, REPORTS)
        if params.tracking.log_model:
            log_generator(run, best.build_generator(), network=best.params, checkpoint=BEST)
        run.log_metrics({names.DURATION_PREFIX + "evaluate": time.monotonic() - started}, step=0)


if __name__ == "__main__":
    run_stage(main)
