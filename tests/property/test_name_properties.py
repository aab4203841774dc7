"""Videos of any name are taken, every one as a file of its own, or refused in one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deepstab.data.folder import copy_videos, find_videos
from deepstab.data.manifest import Manifest, VideoFile, VideoPair
from deepstab.errors import DataError
from deepstab.evaluation.results import file_name

# Whatever a file system takes: surrogates stand for bytes that are no UTF-8.
STEMS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12),
    st.text("_/\\.²³٣1a\u202e\u0301é\n", min_size=1, max_size=4).map(lambda t: t.replace("/", "")),
    st.binary(min_size=1, max_size=12).map(lambda b: os.fsdecode(b.translate(None, b"/\0"))),
    st.integers(1, 251).map(lambda n: "x" * n),
    st.integers(1, 62).map(lambda n: "\U0001d569" * n),
).filter(lambda stem: stem != "" and len(os.fsencode(stem)) <= 251)


def write_videos(root: Path, places: list[tuple[str, str]]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for side in ("stable", "unstable"):
        for number, (above, stem) in enumerate(places):
            folder = root / above / side
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{stem}.mp4").write_text(f"{side} {number}")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.sampled_from(["", "a", "a_b", "a/b"]), STEMS), max_size=4))
@example(places=[("", "a_1"), ("a", "1"), ("", "1")])
@example(places=[("", "²"), ("", "2"), ("", "٢")])
@example(places=[("", ".."), ("", "...")])
@example(places=[("", "x" * 251)])
def test_every_video_is_a_file_of_its_own_or_refused(
    tmp_path: Path, places: list[tuple[str, str]]
) -> None:
    places = list(dict.fromkeys(places))
    root, copied, reports = (tmp_path / name for name in ("root", "copied", "reports"))
    write_videos(root, places)
    shutil.rmtree(copied, ignore_errors=True)
    try:
        sides = find_videos(root)
        if not all(sides.values()):
            return
        copy_videos(root, copied)
    except DataError as error:
        refused = str(error)
        assert refused.isprintable()
        return
    for side, videos in sides.items():
        contents = {path.read_text() for path in (copied / side).iterdir()}
        assert contents == {path.read_text() for path in videos.values()}
        assert len(contents) == len(videos)
    flat = find_videos(copied)
    assert len(flat["stable"]) == len(sides["stable"])
    reports.mkdir(exist_ok=True)
    file = VideoFile("stable/1.mp4", "0" * 64, 20, 30.0, 12, 8)
    pairs = [VideoPair(name, name, "test", file, file, 20) for name in sides["stable"]]
    manifest = Manifest("folder", "folder", tuple(pairs), ())
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    for pair in pairs:
        for made in (f"path_{file_name(pair.name)}.png", f"{file_name(pair.name)}.mp4"):
            (reports / made).write_text("made")
            assert (reports / made).resolve().parent == reports.resolve()


@pytest.mark.parametrize("stem", ["x" * 201, "\U0001d569" * 51])
def test_a_name_no_plot_could_be_named_after(tmp_path: Path, stem: str) -> None:
    write_videos(tmp_path, [("", stem)])
    with pytest.raises(DataError, match="more than 200 bytes; rename it"):
        find_videos(tmp_path)
