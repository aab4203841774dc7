"""StabDiscriminator: is a clip a real stable one, or a stabilized one?"""

from __future__ import annotations

from torch import Tensor, nn

from deepstab.config import ModelParams


class StabDiscriminator(nn.Module):
    """3D-CNN binary classifier of clips."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        widths = [params.channels * factor for factor in (1, 2, 4, 8)]
        blocks: list[nn.Module] = []
        for inputs, outputs in zip([3, *widths], widths, strict=False):
            stride = (1, 2, 2) if inputs == 3 else (2, 2, 2)
            blocks += [
                nn.Conv3d(inputs, outputs, (3, 4, 4), stride=stride, padding=1),
                nn.GroupNorm(4, outputs),
                nn.LeakyReLU(0.2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(widths[-1], 1)

    def forward(self, clip: Tensor) -> Tensor:
        """Judge a batch of clips.

        Args:
            clip: (batch, 3, time, height, width), RGB in [0, 1].

        Returns:
            Logits (batch,), positive for a real stable clip.
        """
        features: Tensor = self.features(2 * clip - 1)
        logits: Tensor = self.classifier(features.mean(dim=(2, 3, 4)))
        return logits[:, 0]
