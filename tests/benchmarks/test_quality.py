"""The quality benchmark: its arithmetic by hand, and small real files through it."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest
from benchmarks.clips import find_clips
from benchmarks.quality import measure as quality
from benchmarks.quality import tables as scoreboard
from benchmarks.quality.measure import (
    Method,
    Settings,
    group_of,
    measure_folder,
)
from benchmarks.quality.rows import Row
from benchmarks.quality.tables import as_csv, as_text, draw, summarize

from deepstab.errors import CheckpointError, DataError
from deepstab.stabilization.whole_video import Crop, Encoding, Smoothing
from deepstab.video.frames import read_frames
from deepstab.video.writer import write_video

SETTINGS = Settings(
    Smoothing(Crop("auto", 0.2)), Encoding(crf=18, preset="ultrafast"), max_frames=None
)

# Chosen so that every mean can be worked out in the head.
FIRST = Row(
    clip="shaky/first.mp4",
    group="shaky",
    method="ours",
    width=1280,
    height=720,
    num_frames=100,
    stability=0.8,
    jitter_px=1.0,
    jitter_ratio=0.25,
    roll_jitter_deg=0.1,
    roll_jitter_ratio=0.5,
    track_jitter_lk_px=1.0,
    track_jitter_dis_px=2.0,
    track_ratio=0.5,
    beyond_lk_ratio=0.9,
    beyond_dis_ratio=0.8,
    crop=0.9,
    distortion_mean=0.998,
    distortion_worst=0.97,
    interframe_psnr_db=20.0,
    black_fraction=0.0,
    seconds=2.0,
    frames_per_s=50.0,
)
SECOND = replace(
    FIRST,
    clip="shaky/second.mp4",
    width=640,
    height=360,
    num_frames=200,
    stability=0.9,
    jitter_ratio=4.0,
    roll_jitter_ratio=0.5,
    track_jitter_lk_px=4.0,
    track_jitter_dis_px=2.0,
    track_ratio=1.5,
    beyond_lk_ratio=0.9,
    beyond_dis_ratio=0.2,
    crop=0.7,
    distortion_mean=0.996,
    distortion_worst=0.99,
    interframe_psnr_db=30.0,
    black_fraction=0.01,
    seconds=1.0,
    frames_per_s=200.0,
)
STEADY = replace(FIRST, clip="steady/third.mp4", group="steady", jitter_ratio=1.0)
FAILED = Row("shaky/bad.mp4", "shaky", "ours", error="video bad.mp4 is empty; replace the file")


def test_the_summary_of_a_group() -> None:
    found = summarize([FIRST, SECOND, FAILED])
    assert len(found) == 1
    summary = found[0]
    assert (summary.group, summary.method) == ("shaky", "ours")
    assert (summary.num_clips, summary.num_failed, summary.num_worse) == (2, 1, 1)
    assert summary.stability == pytest.approx(0.85)
    assert summary.jitter_ratio == pytest.approx(1.0)  # a quarter and four times cancel out
    assert summary.jitter_ratio_worst == 4.0
    assert summary.roll_jitter_ratio == pytest.approx(0.5)
    assert summary.track_jitter_lk_px == pytest.approx(2.0)  # of 1 and 4
    assert summary.track_jitter_dis_px == pytest.approx(2.0)
    assert (summary.track_ratio_worst, summary.num_track_worse) == (1.5, 1)
    assert summary.num_above_vidstab == 0  # which did not run
    assert summary.beyond_lk_ratio == pytest.approx(0.9)
    assert summary.beyond_dis_ratio == pytest.approx(0.4)
    assert summary.crop == pytest.approx(0.8)
    assert summary.crop_worst == 0.7
    assert summary.distortion == pytest.approx(0.997)
    assert summary.distortion_worst_mean == pytest.approx(0.98)
    assert summary.distortion_worst == 0.97
    assert summary.interframe_psnr_db == pytest.approx(25.0)
    assert summary.black_fraction_worst == 0.01
    assert summary.frames_per_s == pytest.approx(100.0)  # 300 frames in 3 s, not the mean of rates
    assert summary.frames_per_s_720p == pytest.approx(50.0)


def test_groups_are_apart_and_together_and_shaky_comes_first() -> None:
    found = summarize([STEADY, FIRST, replace(STEADY, method="other"), replace(FIRST, method="x")])
    assert [(s.group, s.num_clips) for s in found if s.method == "ours"] == [
        ("shaky", 1),
        ("steady", 1),
        ("all", 2),
    ]


def test_clips_above_vidstab_are_counted_clip_by_clip() -> None:
    vidstab = [
        replace(FIRST, method="vid.stab", track_ratio=0.4),
        replace(SECOND, method="vid.stab", track_ratio=1.6),
    ]
    ours, theirs = summarize([FIRST, SECOND, *vidstab])
    assert (ours.num_above_vidstab, theirs.num_above_vidstab) == (1, 0)


def test_what_failed_everywhere_has_no_figures() -> None:
    (summary,) = summarize([FAILED])
    assert (summary.num_clips, summary.num_failed) == (0, 1)
    assert math.isnan(summary.jitter_ratio)
    assert math.isnan(summary.crop_worst)
    assert "nan" not in as_text([summary])
    assert "0 (1 failed)" in as_text([summary])


def test_what_could_not_be_measured_is_not_averaged_away() -> None:
    (summary,) = summarize([FIRST, replace(SECOND, crop=math.nan)])
    assert math.isnan(summary.crop)
    assert math.isnan(summary.crop_worst)


def test_csv_has_a_line_for_each_row_and_empty_cells_for_what_is_unknown() -> None:
    lines = list(csv.DictReader(as_csv([FIRST, FAILED]).splitlines()))
    assert [line["clip"] for line in lines] == [FIRST.clip, FAILED.clip]
    assert float(lines[0]["crop"]) == FIRST.crop
    assert lines[0]["error"] == ""
    assert lines[1]["crop"] == ""
    assert lines[1]["error"] == FAILED.error


def test_text_is_aligned() -> None:
    text = as_text(summarize([FIRST, SECOND, STEADY]))
    assert len({len(line) for line in text.splitlines()}) == 1
    assert [line.split()[0] for line in text.splitlines()] == [
        *("[shaky]", "ours", "[steady]", "ours", "[all]", "ours")
    ]


def test_the_picture_has_a_line_for_each_clip_and_a_dot_for_each_figure() -> None:
    still = replace(STEADY, method="input", frames_per_s=math.nan)
    figure = draw([FIRST, SECOND, STEADY, still, FAILED])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["first (shaky)", "second (shaky)", "third (steady)", "bad (shaky)"]
    by_title = {axes.get_title(): axes for axes in figure.axes}
    dots = {
        title: sum(line.get_marker() == "o" for line in axes.lines)
        for title, axes in by_title.items()
    }
    assert dots["crop"] == 4
    assert dots["frames/s"] == 3


def test_clips_are_found_in_folders_and_grouped_by_them(tmp_path: Path) -> None:
    for name in ("steady/b.MP4", "shaky/far/a.mov", "c.mkv", "notes.txt", "shaky.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path) for path in find_clips(tmp_path)]
    assert {(path.as_posix(), group_of(path)) for path in found} == {
        ("c.mkv", "other"),
        ("shaky.mp4", "other"),
        ("shaky/far/a.mov", "shaky"),
        ("steady/b.MP4", "steady"),
    }


def test_a_folder_without_clips_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no video"):
        find_clips(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_clips(tmp_path / "nowhere")


@pytest.fixture
def clips(tmp_path: Path, tiny_raw: Path) -> Path:
    """A folder with one generated shaky clip and one file that is no video."""
    video = sorted((tiny_raw / "unstable").glob("*"))[0]
    for name, content in (("shaky/a.mp4", video.read_bytes()), ("steady/b.mp4", b"text")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_methods_are_measured_on_the_same_clip(clips: Path, untrained_weights: Path) -> None:
    methods = [
        Method("gaussian", "gaussian"),
        Method("ours", "learned", str(untrained_weights)),
    ]
    seen = []
    rows = measure_folder(
        clips,
        methods,
        replace(SETTINGS, max_frames=30),
        num_workers=1,
        on_clip=lambda: seen.append(1),
    )
    assert len(seen) == 2
    assert [(row.clip, row.method) for row in rows] == [
        ("shaky/a.mp4", "input"),
        ("shaky/a.mp4", "gaussian"),
        ("shaky/a.mp4", "ours"),
        ("steady/b.mp4", "input"),
    ]
    own, *stabilized, bad = rows
    assert (own.jitter_ratio, own.crop, own.distortion_worst) == (1, 1, 1)
    assert (own.track_ratio, own.beyond_lk_ratio, own.beyond_dis_ratio) == (1, 1, 1)
    assert math.isnan(own.frames_per_s)
    for row in stabilized:
        assert not row.error
        assert row.num_frames == 30
        assert row.jitter_ratio == pytest.approx(row.jitter_px / own.jitter_px)
        assert row.jitter_ratio < 0.8
        assert row.track_jitter_lk_px < 0.8 * own.track_jitter_lk_px
        assert row.track_jitter_dis_px < 0.8 * own.track_jitter_dis_px
        shares = [
            row.track_jitter_lk_px / own.track_jitter_lk_px,
            row.track_jitter_dis_px / own.track_jitter_dis_px,
        ]
        assert row.track_ratio == pytest.approx(math.sqrt(math.prod(shares)))
        assert 0.6 < row.crop < 1
        assert row.distortion_worst > 0.9
        assert row.frames_per_s == pytest.approx(30 / row.seconds)
    assert bad.error.startswith("video ")
    assert math.isnan(bad.stability)


def test_missing_weights_stop_before_the_first_clip(clips: Path) -> None:
    methods = [Method("ours", "learned", str(clips / "nothing.pth"))]
    with pytest.raises(CheckpointError, match=r"nothing\.pth"):
        measure_folder(clips, methods, SETTINGS, num_workers=1, on_clip=lambda: None)


def test_a_method_that_loses_frames_is_named(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(source: Path, target: Path, *, crf: int, preset: str) -> None:
        first = islice(read_frames(source), 20)
        write_video(target, first, frame_rate=Fraction(30), crf=crf, preset=preset)

    monkeypatch.setattr(quality, "vidstab", lose)
    rows = quality.measure_clip(
        clips, Path("shaky/a.mp4"), [Method("vid.stab", "vidstab")], SETTINGS
    )
    assert [row.method for row in rows] == ["input", "vid.stab"]
    assert rows[0].stability > 0
    assert "40 frames became 20" in rows[1].error
    assert scoreboard.summarize(rows)[1].num_failed == 1
