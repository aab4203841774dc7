from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from deepstab.errors import CheckpointError
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.vgg19 import place_vgg19


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
    monkeypatch.setattr(checkpoints.shipping, "WEIGHTS", exported)
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


def flipped(content: bytes, part: bytes) -> bytes:
    """The content with one bit changed in the middle of a part that it holds."""
    position = content.index(part) + len(part) // 2
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("what", ["weights", "parameters"])
def test_a_flipped_bit_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, suffix: str, what: str
) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        checkpoints.save(checkpoint.as_tree(), path)
    else:
        checkpoints.export_weights(checkpoint, path)
    assert checkpoints.load_weights(str(path)).epoch == 3
    tensor = max(checkpoint.generator.values(), key=lambda value: value.numel())
    part = tensor.numpy().tobytes() if what == "weights" else b"digest"
    path.write_bytes(flipped(path.read_bytes(), part))
    with pytest.raises(CheckpointError, match=r"damaged|not a DeepStab-GAN") as caught:
        checkpoints.load_weights(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_of_the_earlier_format_is_read_with_a_warning(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = checkpoint.as_tree()
    sha256 = tree.pop("sha256")
    checkpoints.save({**tree, "format": 1}, tmp_path / "old.pth")
    assert checkpoints.load(tmp_path / "old.pth").epoch == 3
    assert "without a checksum" in caplog.text
    checkpoints.save(tree, tmp_path / "stripped.pth")
    with pytest.raises(CheckpointError, match="checksum does not fit"):
        checkpoints.load(tmp_path / "stripped.pth")
    checkpoints.save({**tree, "format": 1, "sha256": sha256, "epoch": 4}, tmp_path / "forged.pth")
    with pytest.raises(CheckpointError, match="checksum does not fit"):
        checkpoints.load(tmp_path / "forged.pth")


def test_shipped_weights_are_verified_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    checkpoints.load_weights(None)
    assert caplog.text == ""


def test_the_same_checkpoint_is_the_same_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        checkpoints.save(checkpoint.as_tree(), tmp_path / "c.pth")
        checkpoints.export_weights(checkpoint, tmp_path / "w.safetensors")
        contents.append([(tmp_path / n).read_bytes() for n in ("c.pth", "w.safetensors")])
    assert contents[0] == contents[1]


def test_a_file_that_holds_code_is_refused_in_our_own_words(tmp_path: Path) -> None:
    torch.save({"format": 2, "code": tmp_path}, tmp_path / "code.pth")
    for load in (checkpoints.load, lambda path: place_vgg19(str(path), tmp_path / "vgg.pth")):
        with pytest.raises(
            CheckpointError, match="a file that holds code is never loaded"
        ) as found:
            load(tmp_path / "code.pth")
        assert "weights_only" not in str(found.value)
        assert "torch" not in str(found.value)
