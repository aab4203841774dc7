"""A row of the quality benchmark: one method on one clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from deepstab.metrics.ratios import geometric_mean, ratio
from deepstab.metrics.stability import StabilityScore, VideoMeasures
from deepstab.metrics.track import TrackJitter

INPUT = "input"
"""Name of the rows that hold the clip's own figures."""

GROUPS = ("shaky", "steady", "other")
"""Folder names whose clips are reported apart; `other` takes any other clip."""


@dataclass(frozen=True)
class Row:
    """One method on one clip; what could not be measured is NaN.

    Attributes:
        clip: path in the folder of clips.
        group: `shaky`, `steady` or `other`.
        method: name, or `input` for the clip itself.
        width: px.
        height: px.
        num_frames: frames of the clip, as counted.
        stability: low-frequency share of the camera path, in [0, 1].
        jitter_px: residual jitter of the translation, px at width 640.
        jitter_ratio: the same over the input's.
        roll_jitter_deg: residual jitter of the rotation, degrees.
        roll_jitter_ratio: the same over the input's.
        track_jitter_lk_px: jitter of tracked corners (Lucas-Kanade), px at width 640.
        track_jitter_dis_px: the same of points carried by dense flow (DIS).
        track_ratio: track jitter over the input's, geometric mean of both trackers.
        beyond_lk_ratio: the part of it that no similarity could take out, over the input's.
        beyond_dis_ratio: the same of points carried by dense flow.
        crop: cropping ratio, in [0, 1].
        distortion_mean: mean distortion value of the frames, in [0, 1].
        distortion_worst: distortion value of the worst frame.
        interframe_psnr_db: mean PSNR between consecutive frames, dB.
        black_fraction: mean fraction of black border pixels.
        seconds: from the clip's file to the written file; loading weights does not count.
        frames_per_s: frames over seconds.
        error: why there are no figures, one line; empty when there are.
    """

    clip: str
    group: str
    method: str
    width: int = 0
    height: int = 0
    num_frames: int = 0
    stability: float = math.nan
    jitter_px: float = math.nan
    jitter_ratio: float = math.nan
    roll_jitter_deg: float = math.nan
    roll_jitter_ratio: float = math.nan
    track_jitter_lk_px: float = math.nan
    track_jitter_dis_px: float = math.nan
    track_ratio: float = math.nan
    beyond_lk_ratio: float = math.nan
    beyond_dis_ratio: float = math.nan
    crop: float = math.nan
    distortion_mean: float = math.nan
    distortion_worst: float = math.nan
    interframe_psnr_db: float = math.nan
    black_fraction: float = math.nan
    seconds: float = math.nan
    frames_per_s: float = math.nan
    error: str = ""


def with_score(row: Row, score: StabilityScore) -> Row:
    """The row with the figures of a stabilized video against its input."""
    row = replace(
        row,
        crop=score.crop,
        distortion_mean=score.distortion_mean,
        distortion_worst=score.distortion_worst,
    )
    return with_measures(row, score.output, score.input)


def with_measures(row: Row, measures: VideoMeasures, before: VideoMeasures) -> Row:
    """The row with a video's own measures, and over those of its input."""
    return replace(
        row,
        stability=measures.stability,
        jitter_px=measures.jitter_px,
        jitter_ratio=ratio(measures.jitter_px, before.jitter_px),
        roll_jitter_deg=measures.roll_jitter_deg,
        roll_jitter_ratio=ratio(measures.roll_jitter_deg, before.roll_jitter_deg),
        interframe_psnr_db=measures.interframe_psnr_db,
        black_fraction=measures.black_fraction,
    )


def with_tracks(row: Row, after: dict[str, TrackJitter], before: dict[str, TrackJitter]) -> Row:
    """The row with the track jitter of a video by each tracker, and over that of its input."""
    corners, flow = after["lucas-kanade"], after["dis"]
    corners_before, flow_before = before["lucas-kanade"], before["dis"]
    ratios = [
        ratio(corners.jitter_px, corners_before.jitter_px),
        ratio(flow.jitter_px, flow_before.jitter_px),
    ]
    return replace(
        row,
        track_jitter_lk_px=corners.jitter_px,
        track_jitter_dis_px=flow.jitter_px,
        track_ratio=geometric_mean(ratios),
        beyond_lk_ratio=ratio(corners.beyond_similarity_px, corners_before.beyond_similarity_px),
        beyond_dis_ratio=ratio(flow.beyond_similarity_px, flow_before.beyond_similarity_px),
    )
