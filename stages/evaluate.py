"""DVC stage: measure the best checkpoint on the test videos; tables, plots, the MLflow run."""

import argparse
import time
from pathlib import Path

from deepstab.config import flatten, load_params
from deepstab.data.manifest import MANIFEST_NAME, Manifest
from deepstab.data.shards import ShardIndex
from deepstab.errors import run_stage
from deepstab.evaluation import page, plots, tables
from deepstab.evaluation.measure import ROWS, evaluate_pair, mean_measures
from deepstab.evaluation.players import write_player
from deepstab.models import checkpoints
from deepstab.progress import progress
from deepstab.tracking.lockfile import read_lock
from deepstab.tracking.model import log_generator
from deepstab.tracking.names import BEST_NAME, LOCK_FILE, PARAMS_FILE
from deepstab.tracking.provenance import read_provenance
from deepstab.tracking.store import attach_run, project_root

# Of the input and the baseline, MLflow's charts get these alone; the report has all.
_COMPARED = ("psnr", "cropped_ssim", "jitter_px", "stability")


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
        tracker.log_text(args.params.read_bytes().decode(), PARAMS_FILE)
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
        plots_folder, videos = args.reports / "plots", args.reports / "videos"
        plots_folder.mkdir(parents=True, exist_ok=True)
        (args.reports / "metrics.json").write_text(
            tables.metrics_json(means, manifest, run_id=tracker.run_id)
        )
        (args.reports / "scores.json").write_text(tables.scores_json(means))
        (args.reports / "per_video.csv").write_text(tables.per_video_csv(results))
        summary = tables.summary(means, manifest)
        (args.reports / "summary.txt").write_text(summary)
        plots.save_image(plots.frame_strip(results[:3]), plots_folder / "side_by_side.png")
        for result in results:
            figure = plots.camera_paths(result)
            plots.save_figure(figure, plots_folder / f"path_{file_name(result.name)}.png")
        unstable = {pair.name: args.raw / pair.unstable.path for pair in test}
        players = {}
        for result in tables.worst_first(results)[: page.NUM_SHOWN]:
            players[result.name] = videos / f"{file_name(result.name)}.mp4"
            write_player(unstable[result.name], result.thetas, players[result.name])
        history = (args.reports / "history.csv").read_text()
        html = args.reports / "report.html"
        html.unlink(missing_ok=True)  # a link to DVC's cache, where one runs without DVC
        html.write_text(
            page.render_page(
                *(results, means, manifest),
                params=flatten(params),
                run_id=tracker.run_id,
                facts=read_provenance().tags,
                training=page.Training(
                    history=tables.read_history(history),
                    best_epoch=checkpoint.epoch,
                    run_id=checkpoint.run_id,
                ),
                players=players,
            ),
            encoding="utf-8",
        )

        tracker.log_dataset(
            f"{manifest.source}-test",
            sha256=manifest.digest(),
            source=manifest.source,
            context="test",
        )
        for row in ROWS:
            names = means if row == "stabilized" else _COMPARED
            values = {f"test/{row}/{name}": means[name][row] for name in names}
            tracker.log_metrics(values, step=0)
        for name in ("metrics.json", "per_video.csv", "report.html"):
            tracker.log_artifact(args.reports / name, "reports")
        for path in sorted(plots_folder.iterdir()):
            tracker.log_artifact(path, "plots")
        for path in players.values():
            tracker.log_artifact(path, "videos")
        if params.tracking.log_model:
            log_generator(tracker, generator, network=checkpoint.params, checkpoint=best)
        if lock := read_lock(Path("dvc.lock"), checkpoint=best):
            tracker.log_text(lock, LOCK_FILE)
        tracker.log_metrics({"duration_s/evaluate": time.monotonic() - started}, step=0)
    print(summary, end="")


def file_name(video: str) -> str:
    return video.replace("/", "_")


if __name__ == "__main__":
    run_stage(main)
