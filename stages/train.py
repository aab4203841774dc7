"""DVC stage: train both networks; checkpoints, loss history, and the experiment's MLflow run."""

import argparse
import json
from pathlib import Path

from deepstab.errors import run_stage, stage_imports

with stage_imports():
    from deepstab.tracking.store import project_root
    from deepstab.training.experiment import run_experiment
    from deepstab.training.launch import start_all
    from deepstab.training.loop import history_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    args = parser.parse_args()
    start_all()
    result = run_experiment(
        args.params,
        raw=args.raw,
        shards=args.shards,
        destination=args.checkpoints,
        root=project_root(),
    )
    if result is None:
        return
    args.reports.mkdir(parents=True, exist_ok=True)
    best, untrained = result.best.validation, result.history[0]
    scores = {f"val_{name}": round(value, 4) for name, value in best.items()}
    (args.reports / "train.json").write_text(json.dumps(scores, indent=1) + "\n")
    (args.reports / "history.csv").write_text(history_csv(result.history))
    reached = [
        f"{name} {value:.4g} ({untrained[name]:.4g} untrained)" for name, value in best.items()
    ]
    print(f"train: best epoch {result.best.epoch}, validation {', '.join(reached)}")


if __name__ == "__main__":
    run_stage(main)
