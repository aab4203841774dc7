"""DVC stage: train both networks; checkpoints, loss history, and the experiment's MLflow run."""

import argparse
import json
from pathlib import Path

from deepstab.errors import run_stage
from deepstab.tracking.store import project_root
from deepstab.training.experiment import run_experiment
from deepstab.training.loop import history_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    args = parser.parse_args()
    result = run_experiment(
        args.params,
        raw=args.raw,
        shards=args.shards,
        destination=args.checkpoints,
        root=project_root(),
    )
    best_psnr, input_psnr = result.best.validation["psnr"], result.input_quality["psnr"]
    args.reports.mkdir(parents=True, exist_ok=True)
    scores = {"val_psnr": round(best_psnr, 3)}
    (args.reports / "train.json").write_text(json.dumps(scores, indent=1) + "\n")
    (args.reports / "history.csv").write_text(history_csv(result.history))
    print(
        f"train: best validation PSNR {best_psnr:.2f} dB in epoch {result.best.epoch} "
        f"(input {input_psnr:.2f} dB)"
    )


if __name__ == "__main__":
    run_stage(main)
