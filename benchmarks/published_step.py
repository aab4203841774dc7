"""Seconds per training step at the published settings, of its networks, and against the original.

Runs `train_step` exactly as params.deepstab.yaml has it (224x224, batch 2, 32 frames, all four
loss terms) on generated flights, because the data set needs an account.

    python benchmarks/published_step.py --vgg PATH [--steps 3]

The original notebook's step took 45 s on two CPU cores at 192x192 (generator 18.7, discriminator
1.7 a pass, VGG 16, flow 0.44 a clip); the last line gives the ratio.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import default_collate

from deepstab.config import Params, load_params, parse_params
from deepstab.data.clips import RandomClips
from deepstab.data.flow_cache import fill_cache
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import prepare_data
from deepstab.models.vgg19 import load_vgg19_features, place_vgg19
from deepstab.training.losses import PerceptualLoss
from deepstab.training.step import Networks, build_networks, train_step

ORIGINAL_S = 45.0


def published_params(vgg: str) -> Params:
    tree = load_params(Path("params.deepstab.yaml")).model_dump()
    tree["data"] |= {"source": "flights", "split": {"test": 0.2, "validation": 0.2}}
    tree["data"]["flights"] |= {"num_flights": 6, "num_frames": 48}
    tree["loss"]["vgg_weights"] = vgg
    return parse_params(tree, origin="published settings on flights")


def prepare(folder: Path, params: Params, device: torch.device) -> tuple[RandomClips, Networks]:
    place_vgg19(params.loss.vgg_weights, folder / "vgg.pth")
    manifest = prepare_data(folder / "raw", params=params.data, seed=1, vgg_weights="none")
    fill_cache(
        manifest,
        raw=folder / "raw",
        destination=folder / "shards",
        scratch=folder / "scratch",
        params=params.flow,
    )
    clips = RandomClips(
        ShardIndex.load(folder / "shards"),
        clip_length=params.model.clip_length,
        windows_per_video=1,
        seed=1,
    )
    features = load_vgg19_features(folder / "vgg.pth")
    perceptual = PerceptualLoss(features, num_frames=params.loss.vgg_frames).to(device)
    networks = build_networks(params.model, params.train, perceptual=perceptual)
    networks.generator.to(device)
    networks.discriminator.to(device)
    return clips, networks


def time_forward(part: str, network: nn.Module, seconds: dict[str, float]) -> None:
    """Add the seconds of every forward pass of a network to its part."""

    def subtract(*_: object) -> None:
        seconds[part] -= now()

    def add(*_: object) -> None:
        seconds[part] += now()

    network.register_forward_pre_hook(subtract)
    network.register_forward_hook(add)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vgg", required=True, help="VGG19 weights: a path, or torchvision")
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    params, accelerator = published_params(args.vgg), Accelerator()
    seconds: dict[str, float] = defaultdict(float)
    steps: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        clips, networks = prepare(Path(name), params, accelerator.device)
        assert networks.perceptual is not None
        time_forward("generator forward", networks.generator, seconds)
        time_forward("discriminator, 3 forward passes", networks.discriminator, seconds)
        time_forward("VGG19 forward, both clips", networks.perceptual, seconds)
        for step in range(args.steps + 1):
            started = now()
            items = [clips[(2 * step + i) % len(clips)] for i in range(2)]
            clip = {k: v.to(accelerator.device) for k, v in default_collate(items).items()}
            seconds["read shards"] = now() - started
            train_step(networks, clip, params.loss, accelerator, step=step)  # type: ignore[arg-type]
            steps.append({**seconds, "whole step": now() - started})
            seconds.clear()
    for part in steps[0]:
        median = float(np.median([step[part] for step in steps[1:]]))  # the first warms up
        print(f"{part:<32} {median:7.3f} s")
    print(f"on {accelerator.device}: {ORIGINAL_S / median:.1f} x faster than the original on a CPU")


if __name__ == "__main__":
    main()
