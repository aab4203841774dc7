"""Visitors in the queue, with real videos in real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepstab.app.job import Settings
from deepstab.app.visits import Job, Service, Visits
from deepstab.errors import VideoError
from deepstab.video.confined import Confinement
from deepstab.video.limits import Limits
from tests.unit.video.conftest import make_video
from tests.unit.video.test_confined import spawned

AS_TUNED = Settings("auto", 1.0)
SERVICE = Service(Limits(duration_s=20), Confinement(memory_bytes=4 * 2**30, time_s=120))


@pytest.fixture
def visits(tmp_path: Path) -> Iterator[Visits]:
    (tmp_path / "made").mkdir()
    opened = Visits(tmp_path / "made", SERVICE)
    yield opened
    opened.close()
    assert spawned() == []


def made(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "made").rglob("*"))


def wait_for(job: Job, phase: str) -> None:
    while job.step is None or job.step.phase != phase:
        assert not job.scores.done(), job.scores.result()
        time.sleep(0.02)


def test_what_browsers_do_not_play_is_shown_as_a_copy(visits: Visits, tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.avi", num_frames=30)
    job = visits.begin("ada", video, AS_TUNED)
    assert job.scores.result().output.num_frames == 30
    assert job.made is not None
    names = {path.name for path in made(tmp_path) if path.is_file()}
    assert names == {"before.mp4", "a-steady.mp4"} == {job.made.before.name, job.made.path.name}
    visits.end("ada")
    assert made(tmp_path) == []


def test_what_cannot_be_made_leaves_nothing(visits: Visits, tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("no video")
    for visitor, video in (
        ("ada", text),
        ("bob", make_video(tmp_path / "long.mp4", num_frames=700)),
    ):
        job = visits.begin(visitor, video, AS_TUNED)
        with pytest.raises(VideoError):
            job.scores.result()
    assert made(tmp_path) == []
