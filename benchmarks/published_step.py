"""Seconds per training step of each part at the published settings, and against the original.

Runs a few steps exactly as params.deepstab.yaml has them (224x224, batch 2, 32 frames, all four
loss terms) on generated flights, because the data set needs an account.

    python benchmarks/published_step.py --vgg PATH [--steps 3]

The original notebook's step took 45 s on two CPU cores at 192x192 (generator 18.7, discriminator
1.7 a pass, VGG 16, flow 0.44 a clip); the last line gives the ratio.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from deepstab import geometry
from deepstab.config import load_params, parse_params
from deepstab.data.clips import RandomClips
from deepstab.data.flow_cache import fill_cache
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import prepare_data
from deepstab.models.vgg19 import load_vgg19_features, place_vgg19
from deepstab.training import losses
from deepstab.training.losses import PerceptualLoss
from deepstab.training.step import build_networks

ORIGINAL_S = 45.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vgg", required=True, help="VGG19 weights: a path, or torchvision")
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    tree = load_params(Path("params.deepstab.yaml")).model_dump()
    tree["data"] |= {"source": "flights", "split": {"test": 0.2, "validation": 0.2}}
    tree["data"]["flights"] |= {"num_flights": 6, "num_frames": 48}
    tree["loss"]["vgg_weights"] = args.vgg
    params = parse_params(tree, origin="published settings on flights")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place_vgg19(args.vgg, folder / "vgg.pth")
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
        perceptual = PerceptualLoss(
            load_vgg19_features(folder / "vgg.pth"), num_frames=params.loss.vgg_frames
        ).to(device)
        networks = build_networks(params.model, params.train, perceptual=perceptual)
        generator, discriminator = networks.generator.to(device), networks.discriminator.to(device)

        seconds: dict[str, list[float]] = defaultdict(list)

        @contextmanager
        def timed(part: str):  # type: ignore[no-untyped-def]
            start = time.perf_counter()
            yield
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[part].append(time.perf_counter() - start)

        for step in range(args.steps + 1):  # the first warms up
            with timed("read shards"):
                items = [clips[(2 * step + i) % len(clips)] for i in range(2)]
                clip = {k: v.to(device) for k, v in default_collate(items).items()}
            with timed("generator forward"):
                theta = generator(clip["unstable"], clip["flow"], clip["aspect"]).theta
            with timed("warp"):
                stabilized, inside = geometry.warp(clip["unstable"], theta)
            with timed("L1, smoothness, size"):
                loss = params.loss.lambda_pixel * losses.masked_l1(
                    stabilized, clip["stable"], inside
                )
                loss = loss + params.loss.lambda_smooth * losses.path_smoothness(theta, clip)  # type: ignore[arg-type]
                loss = loss + params.loss.lambda_identity * losses.correction_size(
                    theta, clip["aspect"]
                )
            with timed("VGG19"):
                perceived = perceptual(stabilized, clip["stable"], inside)
                loss = loss + params.loss.lambda_vgg * perceived
            with timed("discriminator for generator"):
                judged = losses.adversarial(discriminator(stabilized), real=True)
                loss = loss + params.loss.lambda_gan * judged
            with timed("backward, generator's step"):
                networks.optimizer_g.zero_grad()
                loss.backward()
                networks.optimizer_g.step()
            with timed("discriminator's step"):
                networks.optimizer_d.zero_grad()
                loss_d = losses.adversarial(discriminator(clip["stable"]), real=True)
                loss_d = loss_d + losses.adversarial(discriminator(stabilized.detach()), real=False)
                loss_d.backward()
                networks.optimizer_d.step()
            assert bool(torch.isfinite(loss + loss_d))

    medians = {part: float(np.median(values[1:])) for part, values in seconds.items()}
    for part, value in medians.items():
        print(f"{part:<28} {value:7.3f} s")
    total = sum(medians.values())
    print(f"{'step':<28} {total:7.3f} s on {device}")
    print(f"{'against the original':<28} {ORIGINAL_S / total:7.1f} x faster (its step: 45 s, CPU)")


if __name__ == "__main__":
    main()
