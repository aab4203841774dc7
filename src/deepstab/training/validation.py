"""Full-reference figures of held-out clips, stabilized and as filmed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepstab.data.clips import Clip
from deepstab.metrics.image import cropped_ssim, psnr
from deepstab.models.generator import StabGenerator
from deepstab.training.step import stabilize_clip


def input_quality(clips: Iterable[Clip], *, border: float) -> dict[str, float]:
    """Mean PSNR (dB) and Cropped SSIM of the unstabilized input against the stable clips."""
    return _mean_quality(((clip["unstable"], clip["stable"]) for clip in clips), border)


def stabilized_quality(
    generator: StabGenerator, clips: Iterable[Clip], *, border: float, device: torch.device
) -> dict[str, float]:
    """Mean PSNR (dB) and Cropped SSIM of the stabilized clips against the stable ones."""
    training = generator.training
    generator.eval()

    def pairs() -> Iterable[tuple[Tensor, Tensor]]:
        for clip in clips:
            batch: Clip = {key: value[None].to(device) for key, value in clip.items()}  # type: ignore
            yield stabilize_clip(generator, batch)[0], clip["stable"]

    quality = _mean_quality(pairs(), border)
    generator.train(training)
    return quality


def to_images(clip: Tensor) -> NDArray[np.uint8]:
    """A clip (3, time, height, width) in [0, 1] as (time, height, width, 3) uint8."""
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
