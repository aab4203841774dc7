"""Trainings that have ended."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
import yaml

from deepstab.tracking.ended import forget_entered, goes_on, keep_until_entered

OUTPUT = Path("checkpoints/best.pth")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a training that has ended, beside one that has not."""
    (tmp_path / "best.pth").write_bytes(b"made")
    (tmp_path / "states" / "half-done").mkdir(parents=True)
    folder = tmp_path / "states" / "done"
    keep_until_entered(folder, tmp_path / "best.pth")
    return folder


def lock_with(folder: Path, content: bytes) -> Path:
    output = {"path": OUTPUT.as_posix(), "md5": hashlib.md5(content).hexdigest()}
    lock = folder / "dvc.lock"
    lock.write_text(yaml.safe_dump({"stages": {"train": {"outs": [output]}}}))
    return lock


def left(state: Path) -> list[str]:
    return sorted(path.name for path in state.parent.iterdir())


@pytest.mark.parametrize("content", [None, b"of another"])
def test_it_stays_until_dvc_has_its_result(
    state: Path, tmp_path: Path, content: bytes | None
) -> None:
    lock = tmp_path / "dvc.lock" if content is None else lock_with(tmp_path, content)
    forget_entered(state.parent, lock=lock, output=OUTPUT)
    assert left(state) == ["done", "half-done"]
    forget_entered(state.parent, lock=lock_with(tmp_path, b"made"), output=OUTPUT)
    assert left(state) == ["half-done"]


def test_one_whose_removal_was_killed_is_removed_by_the_next(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, **_: object) -> None:
        (folder / "result").unlink()
        raise KeyboardInterrupt

    lock = lock_with(tmp_path, b"made")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            forget_entered(state.parent, lock=lock, output=OUTPUT)
    assert not state.exists()
    forget_entered(state.parent, lock=lock, output=OUTPUT)
    assert left(state) == ["half-done"]


def test_it_stays_a_day(state: Path, tmp_path: Path) -> None:
    lock = lock_with(tmp_path, b"of another")
    for hours, expected in ((23, ["done", "half-done"]), (25, ["half-done"])):
        ended = time.time() - 3600 * hours
        os.utime(state / "result", (ended, ended))
        forget_entered(state.parent, lock=lock, output=OUTPUT)
        assert left(state) == expected


def test_one_that_goes_on_has_not_ended(state: Path, tmp_path: Path) -> None:
    assert goes_on(state)
    assert not goes_on(state)
    forget_entered(state.parent, lock=lock_with(tmp_path, b"made"), output=OUTPUT)
    assert left(state) == ["done", "half-done"]


def test_a_damaged_note_is_of_no_result(state: Path, tmp_path: Path) -> None:
    (state / "result").write_bytes(b"\xff\xfe")
    forget_entered(state.parent, lock=lock_with(tmp_path, b"made"), output=OUTPUT)
    assert left(state) == ["done", "half-done"]
