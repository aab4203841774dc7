from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deepstab.errors import CheckpointError
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint


@pytest.fixture
def checkpoint(untrained: Checkpoint) -> Checkpoint:
    return dataclasses.replace(
        untrained, manifest_digest="digest", run_id="run", epoch=3, validation={"psnr": 30.0}
    )


@pytest.fixture
def exported(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    checkpoints.export_weights(checkpoint, path)
    return path


def test_exported_weights_come_back_as_they_were(exported: Path, checkpoint: Checkpoint) -> None:
    found = checkpoints.load_weights(str(exported))
    assert (found.params, found.made_with) == (checkpoint.params, checkpoint.made_with)
    assert (found.manifest_digest, found.run_id, found.epoch) == ("digest", "run", 3)
    assert found.validation == {"psnr": 30.0}
    assert found.weights_sha256() == checkpoint.weights_sha256()
    assert found.build_generator().training is False


def test_damaged_or_missing_shipped_weights_are_never_used(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SHIPPED", exported)
    assert checkpoints.load_weights(None).epoch == 3
    content = bytearray(exported.read_bytes())
    content[-1] ^= 1
    exported.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load_weights(None)
    exported.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        checkpoints.load_weights(None)


def test_weights_outlive_parameters_that_have_nothing_to_do_with_them(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made_with = {**checkpoint.made_with, "train": {"gone": 1}, "new": {}}
    path = tmp_path / "w.safetensors"
    checkpoints.export_weights(dataclasses.replace(checkpoint, made_with=made_with), path)
    found = checkpoints.load_weights(str(path))
    assert found.params == checkpoint.params
    assert found.made_with == made_with


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load_weights(str(path))
    assert "\n" not in str(caught.value)
