"""The training loop: epochs of steps, validation, checkpoints, resumption."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from deepstab.config import Params
from deepstab.data.clips import Clip, HeldOutClips, RandomClips
from deepstab.data.shards import ShardIndex
from deepstab.errors import TrainingError
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.progress import Progress, progress
from deepstab.tracking import names
from deepstab.tracking.run import Tracker
from deepstab.training import processes
from deepstab.training.losses import load_perceptual_loss
from deepstab.training.state import SoFar, StateFile
from deepstab.training.step import (
    Networks,
    build_accelerator,
    build_networks,
    prepared,
    train_step,
)
from deepstab.training.validation import input_quality, stabilized_quality

log = logging.getLogger(__name__)

# Of which validation figures lower values are better.
_LOWER_IS_BETTER = frozenset({"motion_error"})

_SHOWN_TERMS = ("total", "motion", "smooth", "gan")  # beside the progress bar
_LEAST_RATE = 0.05  # of the learning rate, where it decays
_STATEFUL = ("generator", "discriminator", "optimizer_g", "optimizer_d")


@dataclass(frozen=True)
class TrainingResult:
    """`history` has one row per epoch: mean training terms and validation figures.

    Its first row, epoch 0, is the networks as initialized and has validation figures alone.
    `earlier_s` is what the epochs took that were done before an interruption.
    """

    history: list[dict[str, float]]
    input_quality: dict[str, float]
    best: Checkpoint
    earlier_s: float


def train(
    index: ShardIndex,
    *,
    params: Params,
    vgg19: Path | None,
    destination: Path,
    state: StateFile,
    tracker: Tracker,
) -> TrainingResult:
    """Train both networks, resuming an interrupted training.

    Of several processes the main one alone validates, reports and writes files.

    Args:
        index: the shards.
        params: all parameters; they are written into the checkpoints.
        vgg19: weights for the perceptual loss, needed where `loss.lambda_vgg` is positive.
        destination: folder of the checkpoints; the best is replaced whenever the validation figure
            that `train.select_by` names improves, the final one is written at the end.
        state: to resume from, written after every epoch; left to the caller.
        tracker: receives losses and figures, those of epochs done before an interruption too.

    Raises:
        TrainingError: a loss is not finite; the best checkpoint so far stays.
        ShardError: the shards do not suit the parameters.
    """
    training = _Training(index, params=params, vgg19=vgg19, tracker=tracker)
    so_far = training.resume(state)
    earlier_s = so_far.duration_s
    best, main = destination / names.BEST_NAME, processes.is_main()
    if so_far.best is not None and main:
        checkpoints.save(so_far.best, best)
    training.log_history(so_far)
    with progress(training.num_steps, label="train", unit="steps", shown=main) as bar:
        bar.advance((len(so_far.history) - 1) * training.steps_per_epoch)
        while len(so_far.history) <= params.train.epochs:
            is_best = training.run_epoch(so_far, bar)
            assert so_far.best is not None
            if is_best and main:
                checkpoints.save(so_far.best, best)
            if main:
                state.save(training.state_dicts(), so_far)
    assert so_far.best is not None
    if main:
        final = training.checkpoint(params.train.epochs, so_far.validation)
        checkpoints.save(final.as_tree(), destination / names.FINAL_NAME)
    found = Checkpoint.from_tree(so_far.best, origin=names.BEST_NAME)
    return TrainingResult(so_far.history, so_far.input_quality, found, earlier_s)


def history_csv(history: list[dict[str, float]]) -> str:
    """One line per epoch, figures to six digits; epoch 0 has no training terms."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: f"{value:.6g}" for key, value in row.items()} for row in history])
    return text.getvalue()


class _Training:
    """Networks, clips and device of one training, and what is done with them epoch by epoch."""

    def __init__(
        self, index: ShardIndex, *, params: Params, vgg19: Path | None, tracker: Tracker
    ) -> None:
        self._index, self._params, self._tracker = index, params, tracker
        self._accelerator = build_accelerator(params.train)
        torch.manual_seed(params.seed)
        clip_length = params.model.clip_length
        self._clips = RandomClips(
            index,
            clip_length=clip_length,
            windows_per_video=params.train.windows_per_video,
            seed=params.seed,
        )
        self._held_out = HeldOutClips(index, split="validation", clip_length=clip_length)
        self._loader: DataLoader[Any] = DataLoader(
            self._clips,
            batch_sampler=processes.shares(len(self._clips), params.train.batch_size),
            num_workers=params.train.loader_workers,
        )
        perceptual = load_perceptual_loss(params.loss, vgg19, self._accelerator.device)
        networks = build_networks(params.model, params.train, perceptual=perceptual)
        self._networks = prepared(networks, self._accelerator)

    @property
    def steps_per_epoch(self) -> int:
        return len(self._loader)

    @property
    def num_steps(self) -> int:
        return self._params.train.epochs * self.steps_per_epoch

    def resume(self, state: StateFile) -> SoFar:
        """What an interrupted training left; if there is none, the networks as initialized."""
        left = processes.from_main(state.load)
        if left is None:
            as_initialized = self._validate()
            _require(self._params.train.select_by, as_initialized)
            border = self._params.evaluate.cropped_ssim_border
            as_filmed = processes.from_main(
                lambda: input_quality(self._held_out_clips(), border=border)
            )
            return SoFar(as_filmed, history=[{"epoch": 0, **as_initialized}])
        state_dicts, so_far = left
        networks = self._unwrapped()
        for name, state_dict in state_dicts.items():
            getattr(networks, name).load_state_dict(state_dict)
        if so_far.best is not None:
            earlier, run_id = so_far.best["run_id"], self._tracker.run_id
            if earlier != run_id and processes.is_main():
                log.info("run %s cannot continue: the training goes on as %s", earlier, run_id)
            so_far.best["run_id"] = run_id
        log.info("resuming after epoch %d", len(so_far.history) - 1)
        assert all(math.isfinite(row["total"]) for row in so_far.history[1:])
        return so_far

    def state_dicts(self) -> dict[str, Any]:
        """What `resume` loads into the networks."""
        networks = self._unwrapped()
        return {name: getattr(networks, name).state_dict() for name in _STATEFUL}

    def log_history(self, so_far: SoFar) -> None:
        """Report the epochs done, their training terms as means at the last step of each."""
        as_filmed = so_far.input_quality.items()
        self._tracker.set_tags({names.INPUT_PREFIX + k: f"{v:.6g}" for k, v in as_filmed})
        figures = so_far.history[0].keys() - {"epoch"}
        for epoch, row in enumerate(so_far.history):
            end = epoch * self.steps_per_epoch
            self._tracker.log_metrics({k: v for k, v in row.items() if k in figures}, step=end)
            if epoch > 0:
                means = {k: v for k, v in row.items() if k not in figures | {"epoch"}}
                named = {names.STEP_PREFIX + name: value for name, value in means.items()}
                self._tracker.log_metrics(named, step=end - 1)

    def run_epoch(self, so_far: SoFar, bar: Progress) -> bool:
        """Train and validate one epoch, and add it; whether it is the best so far."""
        began, epoch = time.monotonic(), len(so_far.history)
        self._clips.set_epoch(epoch - 1)
        self._set_learning_rates(epoch)
        means = self._train_epoch((epoch - 1) * self.steps_per_epoch, bar)
        validation = self._validate()
        so_far.history.append({"epoch": epoch, **means, **validation})
        so_far.validation = validation
        self._tracker.log_metrics(validation, step=epoch * self.steps_per_epoch)
        reached = ", ".join(
            f"{name} {value:.4g} ({so_far.history[0][name]:.4g} untrained)"
            for name, value in validation.items()
        )
        log.info("epoch %d: %s; loss %.4f", epoch, reached, means["total"])
        is_best = so_far.best is None or self._is_better(validation, so_far.best["validation"])
        if is_best:
            so_far.best = self.checkpoint(epoch, validation).as_tree()
        so_far.duration_s += time.monotonic() - began
        return is_best

    def checkpoint(self, epoch: int, validation: dict[str, float]) -> Checkpoint:
        """The networks as they are now."""
        networks = self._unwrapped()
        generator, discriminator = (
            {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
            for module in (networks.generator, networks.discriminator)
        )
        return Checkpoint(
            params=self._params.network,
            made_with=self._params.model_dump(mode="json"),
            manifest_digest=self._index.manifest_digest,
            run_id=self._tracker.run_id,
            epoch=epoch,
            validation=validation,
            generator=generator,
            discriminator=discriminator,
        )

    def _train_epoch(self, first_step: int, bar: Progress) -> dict[str, float]:
        """Means of the training terms over all steps of an epoch."""
        rows: list[dict[str, float]] = []
        for step, batch in enumerate(self._loader, first_step):
            clip: Any = {key: value.to(self._accelerator.device) for key, value in batch.items()}
            terms = train_step(
                self._networks, clip, self._params.loss, self._accelerator, step=step
            )
            rows.append(terms)
            named = {names.STEP_PREFIX + name: value for name, value in terms.items()}
            self._tracker.log_metrics(named, step=step)
            bar.advance(1, **{name: terms[name] for name in _SHOWN_TERMS})
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _validate(self) -> dict[str, float]:
        return processes.from_main(
            lambda: stabilized_quality(
                self._unwrapped(),
                self._held_out_clips(),
                border=self._params.evaluate.cropped_ssim_border,
                device=self._accelerator.device,
                adversarial=self._params.loss.lambda_gan > 0,
            )
        )

    def _set_learning_rates(self, epoch: int) -> None:
        params, factor = self._params.train, 1.0
        if params.lr_decay == "cosine":
            done = (epoch - 1) / max(params.epochs - 1, 1)
            factor = _LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2
        for group in self._networks.optimizer_g.param_groups:
            group["lr"] = factor * params.lr_g
        for group in self._networks.optimizer_d.param_groups:
            group["lr"] = factor * params.lr_d

    def _is_better(self, validation: dict[str, float], than: dict[str, float]) -> bool:
        figure = self._params.train.select_by
        value, present = validation[figure], than[figure]
        return value < present if figure in _LOWER_IS_BETTER else value > present

    def _unwrapped(self) -> Networks:
        """The networks themselves, whatever wraps them for the device."""
        models = {
            name: self._accelerator.unwrap_model(
                getattr(self._networks, name), keep_torch_compile=False
            )
            for name in ("generator", "discriminator")
        }
        return dataclasses.replace(self._networks, **models)

    def _held_out_clips(self) -> Iterator[Clip]:
        return (self._held_out[item] for item in range(len(self._held_out)))


def _require(figure: str, validation: dict[str, float]) -> None:
    if figure not in validation:
        raise TrainingError(
            f"train.select_by is {figure}, but the validation videos have no true motion; "
            "set it to psnr"
        )
