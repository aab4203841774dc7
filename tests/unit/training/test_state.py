"""States that a training can go on from, and files that only look like one."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import torch

from deepstab.training.state import SoFar, StateFile


def saved(scratch: Path, fingerprint: str = "this") -> StateFile:
    state = StateFile(scratch, fingerprint)
    best = {"run_id": "run-1", "generator": {"weight": torch.ones(64)}}
    so_far = SoFar({"psnr": 20.0}, [{"epoch": 0}, {"epoch": 1, "total": 0.5}], {}, best, 7.0)
    state.save({"generator": {"weight": torch.arange(1000.0)}}, so_far)
    return state


def test_what_is_saved_is_found_until_it_is_removed(tmp_path: Path) -> None:
    state = saved(tmp_path)
    found = StateFile(tmp_path, "this").load()
    assert found is not None
    networks, so_far = found
    assert torch.equal(networks["generator"]["weight"], torch.arange(1000.0))
    assert (so_far.history[1], so_far.duration_s) == ({"epoch": 1, "total": 0.5}, 7.0)
    assert StateFile(tmp_path, "other").load() is None
    state.remove()
    assert not list(tmp_path.iterdir())


def test_a_training_keeps_its_id_until_it_is_done(tmp_path: Path) -> None:
    state = StateFile(tmp_path, "this")
    first = state.training_id()
    assert StateFile(tmp_path, "this").training_id() == first
    assert StateFile(tmp_path, "other").training_id() != first
    (path, _) = sorted(tmp_path.rglob("id"), key=lambda found: found.read_text() != first)
    for content in (b"", b"../../elsewhere", b"\xff\xfe"):
        path.write_bytes(content)
        new = state.training_id()
        assert len(new) == len(first)
        assert new != first
    StateFile(tmp_path, "other").remove()
    state.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    ["truncated", "empty", "garbage", "a flipped bit", "a foreign tree", "of another", "a folder"],
)
def test_a_damaged_state_is_named_and_dropped(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = saved(tmp_path)
    content = bytearray(state.path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "garbage":
        content[:] = b"garbage" * 1000
    elif damage == "a flipped bit":
        place = content.find(torch.arange(1000.0).numpy().tobytes())
        assert place > 0
        content[place + 2001] ^= 4
    elif damage == "a foreign tree":
        foreign = io.BytesIO()
        torch.save({"weights": torch.zeros(3)}, foreign)
        content[:] = foreign.getvalue()
    else:
        content[:] = saved(tmp_path, "another").path.read_bytes()
    state.path.write_bytes(content)
    if damage == "a folder":
        state.path.unlink()
        state.path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert state.load() is None
        assert state.load() is None
    assert caplog.messages == [f"{state.path} is damaged and was deleted: training starts anew"]
    assert not state.path.exists()
