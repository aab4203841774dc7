"""StabDiscriminator: is a clip a real stable one, or a stabilized one?"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from deepstab.config import ModelParams

# A shake of a tenth of a pixel changes luma by about a hundredth.
_ACCELERATION_GAIN = 20.0


class StabDiscriminator(nn.Module):
    """3D-CNN binary classifier of clips.

    A warp makes no pictures that a camera could not: single frames tell nothing. What differs is
    how they move, so beside RGB it sees the second time-difference of luma, amplified.
    """

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        widths = [params.channels * factor for factor in (1, 2, 4, 8)]
        # No norm in the first block: it would hide how strong the acceleration is.
        blocks: list[nn.Module] = [
            nn.Conv3d(4, widths[0], (3, 4, 4), stride=(1, 2, 2), padding=1),
            nn.LeakyReLU(0.2),
        ]
        for inputs, outputs in pairwise(widths):
            blocks += [
                nn.Conv3d(inputs, outputs, (3, 4, 4), stride=2, padding=1),
                nn.GroupNorm(4, outputs),
                nn.LeakyReLU(0.2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(widths[-1], 1)

    def forward(self, clip: Float[Tensor, "batch 3 time height width"]) -> Float[Tensor, " batch"]:
        """Judge clips, RGB in [0, 1]: logits, positive for a real stable one."""
        luma = clip.mean(dim=1, keepdim=True)
        acceleration = luma[:, :, 2:] - 2 * luma[:, :, 1:-1] + luma[:, :, :-2]
        acceleration = F.pad(_ACCELERATION_GAIN * acceleration, (0, 0, 0, 0, 1, 1)).clamp(-2, 2)
        features: Tensor = self.features(torch.cat([2 * clip - 1, acceleration], dim=1))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3, 4)))
        return logits[:, 0]
