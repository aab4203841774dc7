from __future__ import annotations

from pathlib import Path

import pytest

from deepstab import weights
from deepstab.config import Params
from deepstab.errors import CheckpointError
from deepstab.models.generator import StabGenerator
from deepstab.training.checkpoints import Checkpoint


@pytest.fixture
def checkpoint(tiny_params: Params) -> Checkpoint:
    return Checkpoint(
        params=tiny_params,
        manifest_digest="digest",
        run_id="run",
        epoch=3,
        validation={"psnr": 30.0},
        generator=StabGenerator(tiny_params.model).state_dict(),
        discriminator={},
    )


@pytest.fixture
def exported(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    weights.export_weights(checkpoint, path)
    return path


def test_exported_weights_come_back_as_they_were(exported: Path, checkpoint: Checkpoint) -> None:
    found = weights.load_weights(str(exported))
    assert found.params == checkpoint.params
    assert (found.manifest_digest, found.run_id, found.epoch) == ("digest", "run", 3)
    assert found.validation == {"psnr": 30.0}
    assert found.weights_sha256() == checkpoint.weights_sha256()
    assert found.build_generator().training is False


def test_damaged_or_missing_shipped_weights_are_never_used(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHIPPED", exported)
    assert weights.load_weights(None).epoch == 3
    content = bytearray(exported.read_bytes())
    content[-1] ^= 1
    exported.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        weights.load_weights(None)
    exported.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        weights.load_weights(None)


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        weights.load_weights(str(path))
    assert "\n" not in str(caught.value)
