"""Full-reference figures of held-out clips, stabilized and as filmed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepstab import geometry
from deepstab.data.clips import Clip
from deepstab.metrics.image import psnr
from deepstab.metrics.ssim import cropped_ssim
from deepstab.training.losses import motion_error_px
from deepstab.training.step import Networks, resampled


def input_quality(clips: Iterable[Clip], *, border: float) -> dict[str, float]:
    """Mean PSNR (dB) and Cropped SSIM of the unstabilized input against the stable clips."""
    return _mean_quality(((clip["unstable"], clip["stable"]) for clip in clips), border)


def stabilized_quality(
    networks: Networks,
    clips: Iterable[Clip],
    *,
    border: float,
    device: torch.device,
    adversarial: bool,
) -> dict[str, float]:
    """Mean figures of stabilized clips.

    PSNR (dB) and Cropped SSIM against the stable ones; where the true motion is known,
    `motion_error`, the mean error of the estimated one, px at width 640; and where there is an
    adversary, `discriminator_accuracy`, the share of real and stabilized clips that it tells
    rightly.

    Args:
        networks: in any mode; left as they were.
        clips: held-out clips.
        border: fraction cut from every side before SSIM.
        device: where the networks are.
        adversarial: whether the discriminator is trained.
    """
    generator, discriminator = networks.generator, networks.discriminator
    training = generator.training
    generator.eval()
    errors: list[Tensor] = []
    right: list[bool] = []

    def pairs() -> Iterable[tuple[Tensor, Tensor]]:
        for number, clip in enumerate(clips):
            batch: Clip = {key: value[None].to(device) for key, value in clip.items()}  # type: ignore
            correction = generator(batch["unstable"], batch["flow"], batch["aspect"])
            stabilized = geometry.warp(batch["unstable"], correction.theta)[0]
            if correction.estimate is not None:
                errors.append(_known_errors(correction.estimate.motion, batch).cpu())
            if adversarial:
                real = resampled(batch["stable"], step=number)
                right.append(bool(discriminator(real) > 0))
                right.append(bool(discriminator(stabilized) <= 0))
            yield stabilized[0], clip["stable"]

    with torch.no_grad():
        quality = _mean_quality(pairs(), border)
    generator.train(training)
    known = torch.cat(errors) if errors else torch.empty(0)
    if len(known):
        quality["motion_error"] = float(known.mean())
    if right:
        quality["discriminator_accuracy"] = float(np.mean(right))
    return quality


def _known_errors(motion: Float[Tensor, "batch time 4"], batch: Clip) -> Float[Tensor, " known"]:
    """Mean error over five points of every frame whose true motion is known, px at width 640."""
    true = batch["motion"]
    known = true.isfinite().all(dim=-1)
    error = motion_error_px(motion, true.nan_to_num(), batch["aspect"])
    return error.norm(dim=-1).mean(dim=-1)[known]


def to_images(clip: Float[Tensor, "channel time height width"]) -> NDArray[np.uint8]:
    """A clip in [0, 1] as (time, height, width, channel), 0 to 255."""
    levels = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
    images: NDArray[np.uint8] = levels.permute(1, 2, 3, 0).cpu().numpy()
    return images


def _mean_quality(pairs: Iterable[tuple[Tensor, Tensor]], border: float) -> dict[str, float]:
    ratios: list[float] = []
    similarities: list[float] = []
    for clip, reference in pairs:
        for image, wanted in zip(to_images(clip), to_images(reference), strict=True):
            ratios.append(psnr(image, wanted))
            similarities.append(cropped_ssim(image, wanted, border=border))
    return {"psnr": float(np.mean(ratios)), "cropped_ssim": float(np.mean(similarities))}
