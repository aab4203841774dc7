"""The training loop: epochs of steps, validation, checkpoints, resumption."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

import deepstab
from deepstab.config import Params
from deepstab.data.clips import HeldOutClips, RandomClips
from deepstab.data.shards import ShardIndex
from deepstab.errors import TrainingError
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.vgg19 import load_vgg19_features
from deepstab.progress import Progress, progress
from deepstab.tracking.run import Tracker
from deepstab.training.losses import PerceptualLoss
from deepstab.training.step import Networks, build_networks, train_step
from deepstab.training.validation import input_quality, stabilized_quality

log = logging.getLogger(__name__)

BEST_NAME = "best_stab_gan.pth"
FINAL_NAME = "final_stab_gan.pth"
_STATE_NAME = "state.pth"


@dataclass(frozen=True)
class TrainingResult:
    """`history` has one row per epoch: mean training terms and validation figures."""

    history: list[dict[str, float]]
    input_quality: dict[str, float]
    best: Checkpoint


def fingerprint(params: Params, index: ShardIndex) -> str:
    """SHA-256 of all that decides a training: parameters, shards and code."""
    digest = hashlib.sha256()
    sections = params.model_dump(include={"seed", "model", "loss", "train", "evaluate"})
    digest.update(json.dumps(sections, sort_keys=True).encode())
    for pair in index.pairs:
        digest.update("".join(shard.sha256 for shard in pair.shards).encode())
    for path in sorted(Path(deepstab.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def train(
    index: ShardIndex,
    *,
    params: Params,
    vgg19: Path | None,
    destination: Path,
    scratch: Path,
    tracker: Tracker,
) -> TrainingResult:
    """Train both networks, resuming an interrupted run of the same fingerprint.

    Args:
        index: the shards.
        params: all parameters; they are written into the checkpoints.
        vgg19: weights for the perceptual loss, needed where `loss.lambda_vgg` is positive.
        destination: folder of the checkpoints; the best is replaced whenever validation PSNR
            improves, the final one is written at the end.
        scratch: state to resume from, removed at the end.
        tracker: receives losses and figures.

    Raises:
        TrainingError: a loss is not finite; the best checkpoint so far stays.
        ShardError: the shards do not suit the parameters.
    """
    accelerator = _accelerator(params)
    torch.manual_seed(params.seed)
    clips = RandomClips(
        index,
        clip_length=params.model.clip_length,
        windows_per_video=params.train.windows_per_video,
        seed=params.seed,
    )
    held_out = HeldOutClips(index, split="validation", clip_length=params.model.clip_length)
    loader = DataLoader(
        clips, batch_size=params.train.batch_size, num_workers=params.train.loader_workers
    )
    networks = _prepare(_build(params, vgg19, accelerator), accelerator)
    border = params.evaluate.cropped_ssim_border
    state_path = scratch / fingerprint(params, index) / _STATE_NAME
    state = _resume(state_path, networks)
    best: dict[str, Any] | None = state["best"]
    if best is not None:
        checkpoints.save(best, destination / BEST_NAME)
    as_filmed: dict[str, float] = state["input_quality"] or input_quality(
        (held_out[item] for item in range(len(held_out))), border=border
    )
    history: list[dict[str, float]] = state["history"]
    tracker.log_metrics({f"input_{key}": value for key, value in as_filmed.items()}, step=0)

    step = len(history) * len(loader)
    with progress(params.train.epochs * len(loader), label="train", unit="steps") as bar:
        bar.advance(step)
        for epoch in range(len(history), params.train.epochs):
            clips.set_epoch(epoch)
            means, step = _run_epoch(loader, networks, params, accelerator, tracker, bar, step)
            quality = stabilized_quality(
                accelerator.unwrap_model(networks.generator),
                (held_out[item] for item in range(len(held_out))),
                border=border,
                device=accelerator.device,
            )
            history.append({"epoch": epoch + 1, **means, **quality})
            tracker.log_metrics(quality, step=step)
            reached = _checkpoint(networks, params, index, tracker, epoch + 1, quality, accelerator)
            if best is None or quality["psnr"] > best["validation"]["psnr"]:
                best = reached.as_tree()
                checkpoints.save(best, destination / BEST_NAME)
            log.info(
                "epoch %d: PSNR %.2f dB (input %.2f), Cropped SSIM %.4f (input %.4f), loss %.4f",
                *(epoch + 1, quality["psnr"], as_filmed["psnr"]),
                *(quality["cropped_ssim"], as_filmed["cropped_ssim"], means["total"]),
            )
            _save_state(state_path, networks, history, as_filmed, best)
    assert best is not None
    checkpoints.save(
        _checkpoint(
            *(networks, params, index, tracker, params.train.epochs),
            {key: history[-1][key] for key in ("psnr", "cropped_ssim")},
            accelerator,
        ).as_tree(),
        destination / FINAL_NAME,
    )
    shutil.rmtree(state_path.parent, ignore_errors=True)
    return TrainingResult(history, as_filmed, Checkpoint.from_tree(best, origin=BEST_NAME))


def history_csv(history: list[dict[str, float]]) -> str:
    """One line per epoch, figures to six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: f"{value:.6g}" for key, value in row.items()} for row in history])
    return text.getvalue()


def _accelerator(params: Params) -> Accelerator:
    wanted, found = params.train.device, torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise TrainingError("train.device is cuda but no GPU was found; set it to auto or cpu")
    # Where an operation has no deterministic version on the device, torch warns.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Not called `no` in the file: YAML 1.1 reads that as false, and DVC drops the quotes.
    precision = "no" if params.train.precision == "fp32" else params.train.precision
    return Accelerator(cpu=wanted == "cpu", mixed_precision=precision)


def _build(params: Params, vgg19: Path | None, accelerator: Accelerator) -> Networks:
    perceptual = None
    if params.loss.lambda_vgg > 0:
        if vgg19 is None or not vgg19.is_file():
            raise TrainingError(
                f"loss.lambda_vgg is {params.loss.lambda_vgg} but there are no VGG19 weights at "
                f"{vgg19}; run the download stage, or set lambda_vgg to 0"
            )
        perceptual = PerceptualLoss(
            load_vgg19_features(vgg19), num_frames=params.loss.vgg_frames
        ).to(accelerator.device)
    return build_networks(params.model, params.train, perceptual=perceptual)


def _prepare(networks: Networks, accelerator: Accelerator) -> Networks:
    prepared = {name: accelerator.prepare(getattr(networks, name)) for name in _STATEFUL}
    return dataclasses.replace(networks, **prepared)


def _run_epoch(
    loader: DataLoader[Any],
    networks: Networks,
    params: Params,
    accelerator: Accelerator,
    tracker: Tracker,
    bar: Progress,
    step: int,
) -> tuple[dict[str, float], int]:
    rows: list[dict[str, float]] = []
    for batch in loader:
        clip = {key: value.to(accelerator.device) for key, value in batch.items()}
        values = train_step(networks, clip, params.loss, accelerator, step=step)  # type: ignore
        rows.append(values)
        tracker.log_metrics({f"step/{key}": value for key, value in values.items()}, step=step)
        bar.advance(1, **{key: values[key] for key in ("total", "smooth", "pixel", "gan")})
        step += 1
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}, step


def _checkpoint(
    networks: Networks,
    params: Params,
    index: ShardIndex,
    tracker: Tracker,
    epoch: int,
    quality: dict[str, float],
    accelerator: Accelerator,
) -> Checkpoint:
    generator, discriminator = (
        {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
        for module in (
            accelerator.unwrap_model(networks.generator),
            accelerator.unwrap_model(networks.discriminator),
        )
    )
    return Checkpoint(
        params=params.network,
        made_with=params.model_dump(mode="json"),
        manifest_digest=index.manifest_digest,
        run_id=tracker.run_id,
        epoch=epoch,
        validation=quality,
        generator=generator,
        discriminator=discriminator,
    )


def _save_state(
    path: Path,
    networks: Networks,
    history: list[dict[str, float]],
    as_filmed: dict[str, float],
    best: dict[str, Any],
) -> None:
    tree = {
        "networks": {name: getattr(networks, name).state_dict() for name in _STATEFUL},
        "history": history,
        "input_quality": as_filmed,
        "best": best,
    }
    checkpoints.save(tree, path)


_STATEFUL = ("generator", "discriminator", "optimizer_g", "optimizer_d")


def _resume(path: Path, networks: Networks) -> dict[str, Any]:
    if not path.is_file():
        return {"history": [], "input_quality": None, "best": None}
    state: dict[str, Any] = checkpoints.load_tree(path)
    for name in _STATEFUL:
        getattr(networks, name).load_state_dict(state["networks"][name])
    log.info("resuming after epoch %d", len(state["history"]))
    assert all(math.isfinite(row["total"]) for row in state["history"])
    return state
