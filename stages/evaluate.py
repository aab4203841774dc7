"""DVC stage: measure the best checkpoint on the test videos; tables, plots, the MLflow run."""

import argparse
import time
from pathlib import Path

from deepstab import report
from deepstab.config import flatten, load_params
from deepstab.data.manifest import Manifest
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME
from deepstab.evaluation import evaluate_pair, mean_measures
from deepstab.lockfile import read_lock
from deepstab.logged_model import log_generator
from deepstab.progress import progress
from deepstab.stage import run_stage
from deepstab.tracking import attach_run, project_root
from deepstab.training import checkpoints
from deepstab.training.loop import BEST_NAME


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    args = parser.parse_args()
    params = load_params(args.params)
    index = ShardIndex.load(args.shards)
    manifest = Manifest.load(args.raw / MANIFEST_NAME)
    best = args.checkpoints / BEST_NAME
    checkpoint = checkpoints.load(best)
    generator = checkpoint.build_generator()
    root = project_root()
    with attach_run(
        checkpoint.run_id,
        params=flatten(params),
        experiment=params.tracking.experiment,
        root=root,
        outbox=root / ".scratch" / "outbox",
    ) as tracker:
        entries = {entry.name: entry for entry in index.pairs}
        results = []
        test = manifest.of_split("test")
        with progress(len(test), label="evaluate", unit="videos") as bar:
            for pair in test:
                results.append(
                    evaluate_pair(
                        *(generator, pair, entries[pair.name], index),
                        raw=args.raw,
                        clip_length=checkpoint.params.model.clip_length,
                        params=params.evaluate,
                    )
                )
                bar.advance()
        means = mean_measures(results)
        plots = args.reports / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        (args.reports / "metrics.json").write_text(
            report.metrics_json(means, manifest, run_id=tracker.run_id)
        )
        (args.reports / "per_video.csv").write_text(report.per_video_csv(results))
        summary = report.summary(means, manifest)
        (args.reports / "summary.txt").write_text(summary)
        report.save_image(report.frame_strip(results[:3]), plots / "side_by_side.png")
        for result in results:
            name = result.name.replace("/", "_")
            report.save_figure(report.camera_paths(result), plots / f"path_{name}.png")

        tracker.log_dataset(
            f"{manifest.source}-test",
            sha256=manifest.digest(),
            source=manifest.source,
            context="test",
        )
        for row in ("input", "stabilized"):
            values = {f"test/{row}/{name}": values[row] for name, values in means.items()}
            tracker.log_metrics(values, step=0)
        for path in (args.reports / "metrics.json", args.reports / "per_video.csv"):
            tracker.log_artifact(path, "reports")
        for path in sorted(plots.iterdir()):
            tracker.log_artifact(path, "plots")
        if params.tracking.log_model:
            log_generator(tracker, generator, network=checkpoint.params, checkpoint=best)
        if lock := read_lock(Path("dvc.lock"), checkpoint=best):
            tracker.log_text(lock, "dvc/dvc.lock")
        tracker.log_metrics({"duration_s/evaluate": time.monotonic() - started}, step=0)
    print(summary, end="")


if __name__ == "__main__":
    run_stage(main)
