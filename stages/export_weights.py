"""Not a pipeline stage: make the best checkpoint the weights that ship with the package."""

import argparse
from pathlib import Path

from deepstab.errors import run_stage, stage_imports

with stage_imports():
    from deepstab.models import checkpoints, shipping
    from deepstab.models.checkpoints import export_weights
    from deepstab.models.export import export_graph
    from deepstab.tracking.names import BEST_NAME, COMMIT_TAG
    from deepstab.tracking.provenance import read_provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints") / BEST_NAME)
    args = parser.parse_args()
    checkpoint = checkpoints.load(args.checkpoint)
    export_weights(checkpoint, shipping.WEIGHTS)
    export_graph(checkpoint, shipping.GRAPH)
    shipping.write_checksum(shipping.GRAPH)
    commit = read_provenance().tags.get(COMMIT_TAG, "")
    shipping.COMMIT.write_text(f"{commit}\n", encoding="utf-8")
    for path in (shipping.WEIGHTS, shipping.GRAPH):
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB, epoch {checkpoint.epoch}")


if __name__ == "__main__":
    run_stage(main)
