"""What the benchmarks' tests share: weights that do not do as untrained ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepstab.models.checkpoints import Checkpoint, export_weights


@pytest.fixture(scope="session")
def changed_weights(tmp_path_factory: pytest.TempPathFactory, untrained: Checkpoint) -> Path:
    """The file of the untrained checkpoint with learned weights that are no longer zero."""
    name = "head.reweighter.change.weight"
    assert not untrained.generator[name].any()
    generator = untrained.generator | {name: torch.ones_like(untrained.generator[name])}
    path = tmp_path_factory.mktemp("weights") / "changed.safetensors"
    export_weights(replace(untrained, generator=generator), path)
    return path
