"""DVC stage: bring the videos and the VGG19 weights to data/raw, with a manifest."""

import argparse
import time
from pathlib import Path

from deepstab.errors import run_stage, stage_imports

with stage_imports():
    from deepstab.config import load_params
    from deepstab.data.sources import prepare_data
    from deepstab.tracking.durations import remember_duration
    from deepstab.tracking.store import project_root


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, default=Path("data/raw"))
    args = parser.parse_args()
    params = load_params(args.params)
    manifest = prepare_data(
        args.out, params=params.data, seed=params.seed, vgg_weights=params.loss.vgg_weights
    )
    duration_s, scratch = time.monotonic() - started, project_root() / ".scratch"
    remember_duration("download", duration_s, digest=manifest.digest(), scratch=scratch)
    counts = ", ".join(f"{count} {name}" for name, count in manifest.counts().items())
    print(f"download: {manifest.source}: {counts}")


if __name__ == "__main__":
    run_stage(main)
