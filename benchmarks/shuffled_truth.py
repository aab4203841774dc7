"""The control of every claim about learning: the same training on truth that says nothing.

Trains as the train stage does, untracked, but with the true motions of each clip in random order,
so that their size stays and their meaning goes. What such weights gain over untrained ones in
`make bench-learning` (BENCH='--weights shuffled=PATH') is not learned from the truth. Needs
`dvc repro flow`.

    python -m benchmarks.shuffled_truth --params params.weights.yaml --out build/shuffled
"""

import argparse
import tempfile
from pathlib import Path

import torch

from deepstab.config import load_params
from deepstab.data.clips import Clip, RandomClips
from deepstab.data.shards import ShardIndex
from deepstab.errors import run_stage
from deepstab.models.vgg19 import VGG19_NAME
from deepstab.tracking.run import Tracker
from deepstab.training import loop


class ShuffledClips(RandomClips):
    """Random clips whose motions are in an order of their own, the same at every run."""

    def __getitem__(self, item: int) -> Clip:
        clip = super().__getitem__(item)
        source = torch.Generator().manual_seed(item)
        order = torch.randperm(len(clip["motion"]), generator=source)
        return {**clip, "motion": clip["motion"][order]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    args = parser.parse_args()
    loop.RandomClips = ShuffledClips  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as scratch:
        result = loop.train(
            ShardIndex.load(Path("data/shards")),
            params=load_params(args.params),
            vgg19=Path("data/raw") / VGG19_NAME,
            destination=args.out,
            scratch=Path(scratch),
            tracker=Tracker(),
        )
    for row in (result.history[0], result.best.validation):
        print({name: round(value, 4) for name, value in row.items()})


if __name__ == "__main__":
    run_stage(main)
