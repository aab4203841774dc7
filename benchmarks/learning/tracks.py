"""Track jitter of clips as each network's plan would leave them; nothing is rendered.

The points of each clip are followed once by both trackers of `deepstab.metrics.track`, and mapped
through the corrections that each network's motion leads to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from benchmarks.clips import find_clips
from benchmarks.learning.contest import (
    INPUT,
    UNTRAINED,
    Contest,
    Floats,
    Frames,
    header,
    in_processes,
    interval_lines,
    log_ratios,
    mean_line,
    networks,
    over_seeds,
    row,
    see_motion,
)

from deepstab.data.flow import with_flow
from deepstab.errors import DataError
from deepstab.metrics.ratios import geometric_mean
from deepstab.metrics.track import TrackJitter, correct_tracks, find_tracks, measure_tracks
from deepstab.stabilization.whole_video import plan_motion, smoothing_period
from deepstab.video.frames import probe, read_frames


@dataclass(frozen=True)
class Figures:
    """One clip: track jitter by tracker and by name, and by name the side of what is shown.

    Names are `input` and those of `benchmarks.learning.contest.networks`.
    """

    clip: str
    jitter: dict[str, dict[str, TrackJitter]]
    zoom: dict[str, float]


def measure_clip(folder: Path, contest: Contest, clip: Path) -> Figures:
    """Measure a clip, a path in the folder, and what each network's plan would make of it.

    Raises:
        DataError: no frame has enough tracks, or the clip does not move at all.
    """
    path = folder / clip
    generators, params = networks(contest)
    info = probe(path)
    tracks = find_tracks(read_frames(path))
    jitter = {tracker: {INPUT: measure_tracks(found)} for tracker, found in tracks.items()}
    for tracker, by_name in jitter.items():
        if not by_name[INPUT].jitter_px > 0:
            raise DataError(
                f"{clip}: track jitter {by_name[INPUT].jitter_px} ({tracker}) has no ratio; "
                "take the clip out of the folder"
            )
    size = (params.flow.width, params.flow.height)
    frames: Frames = list(with_flow(read_frames(path, size=size), params.flow))
    period = smoothing_period(float(info.frame_rate))
    zoom = {}
    for name, generator in generators.items():
        moved = see_motion(frames, generator, aspect=info.width / info.height, params=params)
        planned = plan_motion(
            moved, contest.crop, period=period, wobble_sigma=params.model.wobble_sigma
        )
        zoom[name] = planned.plan.zoom
        thetas = planned.thetas()
        for tracker, found in tracks.items():
            jitter[tracker][name] = measure_tracks(correct_tracks(found, thetas))
    return Figures(clip.as_posix(), jitter, zoom)


def measure_clips(folder: Path, contest: Contest, *, num_workers: int) -> list[Figures]:
    """Measure the clips of a folder."""
    clips = [path.relative_to(folder) for path in find_clips(folder)]
    measure = partial(measure_clip, folder, contest)
    return in_processes(measure, clips, label="track jitter", num_workers=num_workers)


def report(clips: list[Figures], weights: list[str]) -> str:
    """Tables of the clips and of their means, and as the last line `trained/untrained R`."""
    trackers = list(clips[0].jitter)
    lines = list(chain.from_iterable(tracker_table(clips, name, weights) for name in trackers))
    zooms = {name: np.mean([clip.zoom[name] for clip in clips]) for name in clips[0].zoom}
    lines += ["crop: " + ", ".join(f"{name} {zoom:.3f}" for name, zoom in zooms.items()), ""]
    names = [UNTRAINED, *weights]
    logs = {
        tracker: log_ratios(by_name(clips, tracker, names, "jitter_px"), weights)
        for tracker in trackers
    }
    both = np.mean(list(logs.values()), axis=0)
    lines.append(
        "track jitter, trained/untrained: geometric mean, and its 95 % interval by bootstrap over "
        "the clips"
    )
    for title, of_clips in {**logs, "both trackers": both}.items():
        lines += interval_lines(title, of_clips, weights)
    return "\n".join([*lines, f"trained/untrained {np.exp(both.mean()):.3f}"])


def tracker_table(clips: list[Figures], tracker: str, weights: list[str]) -> list[str]:
    """Lines with each clip's track jitter, and what lies beyond a similarity over the input's."""
    names = [INPUT, UNTRAINED, *weights]
    lines = [header(f"[{tracker}] px at width 640", names, weights)]
    lines += [
        mean_line(clip.clip, by_name([clip], tracker, names, "jitter_px"), weights)
        for clip in clips
    ]
    lines.append(mean_line("geometric mean", by_name(clips, tracker, names, "jitter_px"), weights))
    beyond = by_name(clips, tracker, names, "beyond_similarity_px")
    shares = [geometric_mean(list(of_clips / beyond[INPUT])) for of_clips in beyond.values()]
    lines.append(row("beyond similarity / input", [f"{share:.3f}" for share in shares]))
    measured = [clip.jitter[tracker][INPUT] for clip in clips]
    counted, left_out = (
        sum(getattr(found, attribute) for found in measured)
        for attribute in ("num_frames", "num_left_out")
    )
    return [*lines, f"input: {counted} frames counted, {left_out} left out", ""]


def by_name(
    clips: list[Figures], tracker: str, names: list[str], attribute: str
) -> dict[str, Floats]:
    """A figure of each clip, (num_clips,), by name."""
    figures = [
        {name: getattr(found, attribute) for name, found in clip.jitter[tracker].items()}
        for clip in clips
    ]
    return {name: np.array([over_seeds(of_clip, name) for of_clip in figures]) for name in names}
