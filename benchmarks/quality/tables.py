"""The table and the picture of a quality benchmark: rows averaged, written and drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from benchmarks.quality.rows import GROUPS, Row
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepstab.metrics.ratios import geometric_mean

# The size whose speed is given apart: speeds over a mix of sizes depend on the mix.
_HD_SIZE = (1280, 720)
_COLORS = ("black", "tab:orange", "tab:green", "tab:blue", "tab:purple", "tab:red", "tab:brown")


@dataclass(frozen=True)
class Summary:
    """One method over the clips of a group; failed clips are counted and left out.

    Attributes:
        group: `shaky`, `steady`, `other`, or `all` of them.
        method: name, or `input`.
        num_clips: clips measured.
        num_failed: clips on which the method failed.
        stability: mean.
        jitter_ratio: geometric mean over the clips.
        jitter_ratio_worst: of the worst clip.
        num_worse: clips with more jitter than the input.
        roll_jitter_ratio: geometric mean over the clips.
        roll_jitter_ratio_worst: of the worst clip.
        track_jitter_lk_px: geometric mean over the clips, of tracked corners, px at width 640.
        track_jitter_dis_px: the same of points carried by dense flow.
        track_ratio_worst: track jitter over the input's, both trackers, of the worst clip.
        num_track_worse: clips with more track jitter than the input.
        num_above_vidstab: clips with more track jitter than vid.stab's.
        beyond_lk_ratio: geometric mean of what no similarity could take out, over the input's.
        beyond_dis_ratio: the same of points carried by dense flow.
        crop: mean.
        crop_worst: of the worst clip.
        distortion: mean over clips and frames.
        distortion_worst_mean: mean over the clips of the worst frame.
        distortion_worst: worst frame of the worst clip.
        interframe_psnr_db: mean, dB.
        black_fraction_worst: of the worst clip.
        frames_per_s: all frames over all seconds.
        frames_per_s_720p: the same of the 1280x720 clips; NaN without any.
    """

    group: str
    method: str
    num_clips: int
    num_failed: int
    stability: float
    jitter_ratio: float
    jitter_ratio_worst: float
    num_worse: int
    roll_jitter_ratio: float
    roll_jitter_ratio_worst: float
    track_jitter_lk_px: float
    track_jitter_dis_px: float
    track_ratio_worst: float
    num_track_worse: int
    num_above_vidstab: int
    beyond_lk_ratio: float
    beyond_dis_ratio: float
    crop: float
    crop_worst: float
    distortion: float
    distortion_worst_mean: float
    distortion_worst: float
    interframe_psnr_db: float
    black_fraction_worst: float
    frames_per_s: float
    frames_per_s_720p: float


def summarize(rows: Sequence[Row]) -> list[Summary]:
    """Average over the clips of each group and, where there are several groups, of all."""
    groups = list(dict.fromkeys(row.group for row in rows))
    groups.sort(key=lambda group: GROUPS.index(group))
    methods = list(dict.fromkeys(row.method for row in rows))
    chosen = [(group, [row for row in rows if row.group == group]) for group in groups]
    if len(groups) > 1:
        chosen.append(("all", list(rows)))
    vidstab = {row.clip: row.track_ratio for row in rows if row.method == "vid.stab"}
    return [
        _summary(group, method, [row for row in members if row.method == method], vidstab)
        for group, members in chosen
        for method in methods
    ]


def as_csv(table: Sequence[Row] | Sequence[Summary]) -> str:
    """Write rows as CSV with a header, six digits, NaN as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(table[0]))
    for line in table:
        writer.writerow(_cell(value) for value in asdict(line).values())
    return text.getvalue()


# The columns of the text: what stands above, the attribute, its digits, and what it is times.
_COLUMNS = (
    ("stability", "stability", 3, 1),
    ("jitter/in", "jitter_ratio", 3, 1),
    ("worst", "jitter_ratio_worst", 2, 1),
    ("worse", "num_worse", 0, 1),
    ("roll/in", "roll_jitter_ratio", 3, 1),
    ("worst", "roll_jitter_ratio_worst", 2, 1),
    ("tracks px", "track_jitter_lk_px", 3, 1),
    ("DIS px", "track_jitter_dis_px", 3, 1),
    ("worst/in", "track_ratio_worst", 2, 1),
    ("worse", "num_track_worse", 0, 1),
    (">vid.stab", "num_above_vidstab", 0, 1),
    ("beyond/in", "beyond_lk_ratio", 3, 1),
    ("DIS", "beyond_dis_ratio", 3, 1),
    ("crop", "crop", 3, 1),
    ("worst", "crop_worst", 3, 1),
    ("distortion", "distortion", 4, 1),
    ("worst", "distortion_worst", 3, 1),
    ("PSNR dB", "interframe_psnr_db", 2, 1),
    ("black %", "black_fraction_worst", 3, 100),
    ("frames/s", "frames_per_s", 1, 1),
    ("at 720p", "frames_per_s_720p", 1, 1),
)


def as_text(summaries: Sequence[Summary]) -> str:
    """Write the summaries as aligned columns, one block for each group."""
    lines: list[tuple[str, ...]] = []
    for previous, s in zip((None, *summaries), summaries, strict=False):
        if previous is None or previous.group != s.group:
            lines.append((f"[{s.group}]", "clips", *(heading for heading, *_ in _COLUMNS)))
        clips = f"{s.num_clips}" + (f" ({s.num_failed} failed)" if s.num_failed else "")
        figures = (
            _figure(factor * getattr(s, name), digits) for _, name, digits, factor in _COLUMNS
        )
        lines.append((s.method, clips, *figures))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def draw(rows: Sequence[Row]) -> Figure:
    """Draw each clip as a line and each method as a dot, one panel for each measure."""
    panels = (
        ("stability", "stability", "linear"),
        ("jitter_ratio", "jitter / input", "log"),
        ("roll_jitter_ratio", "roll jitter / input", "log"),
        ("track_ratio", "track jitter / input", "log"),
        ("crop", "crop", "linear"),
        ("distortion_worst", "distortion, worst frame", "linear"),
        ("interframe_psnr_db", "inter-frame PSNR, dB", "linear"),
        ("frames_per_s", "frames/s", "linear"),
    )
    clips = list(dict.fromkeys((row.group, row.clip) for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    figure = Figure(figsize=(2.6 * len(panels) + 3, 0.26 * len(clips) + 1.8), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    colors = {name: _COLORS[index % len(_COLORS)] for index, name in enumerate(methods)}
    for axes, (attribute, title, scale) in zip(all_axes, panels, strict=True):
        for row in rows:
            value = getattr(row, attribute)
            if math.isfinite(value) and not (scale == "log" and value <= 0):
                place = clips.index((row.group, row.clip))
                axes.plot(value, place, "o", color=colors[row.method], markersize=4.5, alpha=0.8)
        axes.set(title=title, xscale=scale)
        axes.grid(axis="y", alpha=0.3)
        for place in range(1, len(clips)):
            if clips[place][0] != clips[place - 1][0]:
                axes.axhline(place - 0.5, color="gray", linewidth=1)
    names = [f"{Path(clip).stem} ({group})" for group, clip in clips]
    all_axes[0].set_yticks(range(len(clips)), names, fontsize="small")
    all_axes[0].set_ylim(len(clips) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, label=name)
        for name, color in colors.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _summary(group: str, method: str, rows: Sequence[Row], vidstab: Mapping[str, float]) -> Summary:
    good = [row for row in rows if not row.error]

    def over_clips(reduce: Callable[[list[float]], np.float64], attribute: str) -> float:
        # NumPy's mean, min and max pass NaN on, Python's lose it.
        values = [getattr(row, attribute) for row in good]
        return float(reduce(values)) if values else math.nan

    return Summary(
        group=group,
        method=method,
        num_clips=len(good),
        num_failed=len(rows) - len(good),
        stability=over_clips(np.mean, "stability"),
        jitter_ratio=geometric_mean([row.jitter_ratio for row in good]),
        jitter_ratio_worst=over_clips(np.max, "jitter_ratio"),
        num_worse=sum(row.jitter_ratio > 1 for row in good),
        roll_jitter_ratio=geometric_mean([row.roll_jitter_ratio for row in good]),
        roll_jitter_ratio_worst=over_clips(np.max, "roll_jitter_ratio"),
        track_jitter_lk_px=geometric_mean([row.track_jitter_lk_px for row in good]),
        track_jitter_dis_px=geometric_mean([row.track_jitter_dis_px for row in good]),
        track_ratio_worst=over_clips(np.max, "track_ratio"),
        num_track_worse=sum(row.track_ratio > 1 for row in good),
        num_above_vidstab=sum(row.track_ratio > vidstab.get(row.clip, math.inf) for row in good),
        beyond_lk_ratio=geometric_mean([row.beyond_lk_ratio for row in good]),
        beyond_dis_ratio=geometric_mean([row.beyond_dis_ratio for row in good]),
        crop=over_clips(np.mean, "crop"),
        crop_worst=over_clips(np.min, "crop"),
        distortion=over_clips(np.mean, "distortion_mean"),
        distortion_worst_mean=over_clips(np.mean, "distortion_worst"),
        distortion_worst=over_clips(np.min, "distortion_worst"),
        interframe_psnr_db=over_clips(np.mean, "interframe_psnr_db"),
        black_fraction_worst=over_clips(np.max, "black_fraction"),
        frames_per_s=_speed(good),
        frames_per_s_720p=_speed([row for row in good if (row.width, row.height) == _HD_SIZE]),
    )


def _speed(rows: Sequence[Row]) -> float:
    seconds = math.fsum(row.seconds for row in rows)
    return sum(row.num_frames for row in rows) / seconds if seconds > 0 else math.nan


def _cell(value: float | str) -> float | str:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _figure(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
