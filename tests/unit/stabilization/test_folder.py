"""Which files of a folder become which, and what counts as done."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deepstab.errors import ParameterError, VideoError
from deepstab.files import sha256_of
from deepstab.stabilization.folder import (
    JOURNAL_NAME,
    Journal,
    Outcome,
    Settings,
    digest_of,
    plan,
)

SETTINGS = Settings("auto", 1.0, 18, "veryfast", "0" * 64)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_folders_are_kept_and_other_files_named(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "b.mp4", "a/c.AVI", "a/d.mkv", "notes.txt", ".hidden/e.mp4")
    other = make(tmp_path / "elsewhere", "single.bin") / "single.bin"
    tasks, left_out = plan([source, other], tmp_path / "out")
    assert [task.name for task in tasks] == ["a/c.mp4", "a/d.mkv", "b.mp4", "single.mp4"]
    assert tasks[0].source == source / "a/c.AVI"
    assert tasks[0].destination == tmp_path / "out/a/c.mp4"
    assert left_out == [source / "notes.txt"]


def test_what_cannot_be_read_is_a_task_that_fails_and_not_left_out(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a.mp4")
    (source / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(source / "pipe.mp4")
    tasks, left_out = plan([source], tmp_path / "out")
    assert [task.name for task in tasks] == ["a.mp4", "gone.mp4", "pipe.mp4"]
    assert left_out == []
    assert [bool(digest_of(task.source)) for task in tasks] == [True, False, False]


def test_names_that_meet_and_folders_within_are_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a.mov", "b.avi", "b.mp4")
    with pytest.raises(ParameterError, match=r"b\.avi and .*b\.mp4 would both become .*rename one"):
        plan([source], tmp_path / "out")
    with pytest.raises(ParameterError, match="choose a folder outside"):
        plan([source], source / "out")
    with pytest.raises(VideoError, match="no video there"):
        plan([make(tmp_path / "empty", "a.txt")], tmp_path / "out")
    with pytest.raises(VideoError, match="does not exist"):
        plan([tmp_path / "nowhere"], tmp_path / "out")


def test_done_is_the_same_result_of_the_same_input_by_the_same_settings(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a.mp4")
    results = make(tmp_path / "out", "a.mp4")
    ((task,), _) = plan([source], results)
    outcome = Outcome(
        "a.mp4", sha256_of(task.source), sha256_of(task.destination), asdict(SETTINGS), {"crop": 1}
    )
    assert Journal(results).done(task, SETTINGS) is None
    with (results / JOURNAL_NAME).open("w") as journal:
        journal.write('{"name": "a.mp4", "sour')  # cut off
    Journal(results).add(outcome)
    assert Journal(results).done(task, SETTINGS) == outcome
    assert Journal(results).done(task, replace(SETTINGS, strength=2.0)) is None
    Journal(results).add(replace(outcome, error="failed later"))
    assert Journal(results).done(task, SETTINGS) is None
    Journal(results).add(outcome)
    task.destination.write_text("half")
    assert Journal(results).done(task, SETTINGS) is None
    task.destination.write_text("a.mp4")
    assert Journal(results).done(task, SETTINGS) == outcome
    task.source.write_text("another")
    assert Journal(results).done(task, SETTINGS) is None
