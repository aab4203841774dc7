"""DVC stage: draw what evaluate measured, as plots, a summary and one HTML page."""

import time
from pathlib import Path

from deepstab.errors import run_stage, stage_imports

with stage_imports():
    from deepstab.config import flatten, load_params
    from deepstab.data.manifest import Manifest
    from deepstab.evaluation.draw import draw_report
    from deepstab.evaluation.results import Evaluation, mean_measures
    from deepstab.evaluation.tables import note
    from deepstab.tracking import names
    from deepstab.tracking.store import attach_run, project_root

RAW, REPORTS = Path("data/raw"), Path(names.REPORTS_FOLDER)


def main() -> None:
    started = time.monotonic()
    params = load_params(Path("params.yaml"))
    evaluation = Evaluation.load(Path(names.MEASURES_FILE))
    manifest = Manifest.load(RAW / "manifest.json")
    summary, drawn = draw_report(evaluation, manifest, params=flatten(params), reports=REPORTS)
    with attach_run(
        evaluation.run_id,
        params=flatten(params),
        experiment=params.tracking.experiment,
        root=project_root(),
        outbox=project_root() / ".scratch" / "outbox",
    ) as tracker:
        for path in drawn:
            tracker.log_artifact(
                path, names.REPORTS_FOLDER if path.suffix == ".html" else names.PLOTS_FOLDER
            )
        means = mean_measures(evaluation.videos)
        about = note(means, manifest, trained_in=evaluation.trained_in)
        tracker.set_tags({names.NOTE_TAG: about})
        tracker.log_metrics({names.DURATION_PREFIX + "report": time.monotonic() - started}, step=0)
    print(summary, end="")


if __name__ == "__main__":
    run_stage(main)
