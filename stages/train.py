"""DVC stage: train both networks; checkpoints, loss history, and the experiment's MLflow run."""

import argparse
import json
import time
from pathlib import Path

from deepstab.config import flatten, load_params
from deepstab.data.manifest import Manifest
from deepstab.data.shards import ShardIndex, verify_shards
from deepstab.data.sources import MANIFEST_NAME, VGG19_NAME
from deepstab.errors import run_stage
from deepstab.evaluation import plots
from deepstab.models import checkpoints
from deepstab.tracking.durations import recall_durations
from deepstab.tracking.store import project_root, start_run
from deepstab.training.loop import BEST_NAME, FINAL_NAME, history_csv, train


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
    verify_shards(index)
    manifest = Manifest.load(args.raw / MANIFEST_NAME)
    args.reports.mkdir(parents=True, exist_ok=True)
    root = project_root()
    with start_run(
        experiment=params.tracking.experiment,
        root=root,
        outbox=root / ".scratch" / "outbox",
        tags={"data.source": manifest.source, "data.generated": str(manifest.generated)},
        system_metrics=True,
    ) as tracker:
        tracker.log_params(flatten(params))
        for context in ("training", "validation"):
            tracker.log_dataset(
                f"{manifest.source}-{context}",
                sha256=manifest.digest(),
                source=manifest.source,
                context=context,
            )
        result = train(
            index,
            params=params,
            vgg19=args.raw / VGG19_NAME,
            destination=args.checkpoints,
            scratch=root / ".scratch" / "train",
            tracker=tracker,
        )
        best = {"epoch": result.best.epoch, **result.best.validation}
        tracker.log_metrics({f"best/{name}": value for name, value in best.items()}, step=0)
        scores = {"val_psnr": round(best["psnr"], 3)}
        (args.reports / "train.json").write_text(json.dumps(scores, indent=1) + "\n")
        (args.reports / "history.csv").write_text(history_csv(result.history))
        curves = args.reports / "loss_curves.png"
        plots.save_figure(plots.loss_curves(result.history, result.input_quality), curves)
        tracker.log_artifact(curves, "plots")
        tracker.log_artifact(args.raw / MANIFEST_NAME, "data")
        for name in (BEST_NAME, FINAL_NAME):
            tracker.log_artifact(args.checkpoints / name, "checkpoints")
        final = checkpoints.load(args.checkpoints / FINAL_NAME)
        tracker.set_tags(
            {
                "checkpoint.epoch": str(result.best.epoch),
                "checkpoint.generator_sha256": result.best.generator_sha256(),
                "checkpoint.final_generator_sha256": final.generator_sha256(),
            }
        )
        digests = {"download": manifest.digest(), "flow": index.digest()}
        durations = recall_durations(digests, scratch=root / ".scratch")
        durations["duration_s/train"] = time.monotonic() - started
        tracker.log_metrics(durations, step=0)
    print(
        f"train: best validation PSNR {best['psnr']:.2f} dB in epoch {best['epoch']:.0f} "
        f"(input {result.input_quality['psnr']:.2f} dB)"
    )


if __name__ == "__main__":
    run_stage(main)
