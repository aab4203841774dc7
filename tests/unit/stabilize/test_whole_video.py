from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage

from deepstab.data.manifest import Manifest
from deepstab.data.sources import MANIFEST_NAME
from deepstab.data.truth import Truth
from deepstab.errors import CheckpointError
from deepstab.metrics.stability import score_video
from deepstab.models.checkpoints import Checkpoint, Origin
from deepstab.stabilize.whole_video import (
    Crop,
    Encoding,
    Stabilization,
    stabilize_video,
    warp_frame,
)
from deepstab.video.frames import probe, read_comment, read_frames
from deepstab.video.rewrite import rewrite_planes


def test_identity_leaves_the_frame_as_it_is() -> None:
    image = skimage.data.astronaut()[:101, :153]
    np.testing.assert_array_equal(warp_frame(image, np.eye(2, 3)), image)


def test_warp_repeats_the_edge() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, -1] = 200
    moved = warp_frame(image, np.array([[1.0, 0, 0.5], [0, 1, 0]]))  # two px to the left
    assert (moved[:, -3:] == 200).all()
    assert (moved[:, :-3] == 0).all()


def test_a_bent_theta_is_rendered_as_it_is_written() -> None:
    # x -> x + .1 x^2: at the right border it looks .1 of the half width further out, at the left
    # one .1 further in; a ramp shows where.
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (10, 1))
    bent = np.array([[1.0, 0, 0, 0.1, 0, 0], [0, 1.0, 0, 0, 0, 0]])
    x = (2 * np.arange(100) + 1) / 100 - 1
    looked_at = ((x + 0.1 * x**2 + 1) * 50 - 0.5).clip(0, 99)
    found = warp_frame(ramp, bent)
    assert np.abs(found - 2 * looked_at).max() <= 1


def stabilize(
    source: Path, destination: Path, untrained: Checkpoint, **settings: Any
) -> tuple[Stabilization, Counter[str]]:
    phases: Counter[str] = Counter()
    done = stabilize_video(
        source,
        destination,
        checkpoint=untrained,
        crop=settings.get("crop", Crop("auto", 0.25)),
        strength=settings.get("strength", 1.0),
        encoding=Encoding(crf=12, preset="veryfast"),
        on_frame=lambda phase: phases.update([phase]),
    )
    return done, phases


def shakiest(raw: Path) -> Path:
    pairs = Manifest.load(raw / MANIFEST_NAME).pairs
    truths = [Truth.load(raw / pair.truth.path) for pair in pairs if pair.truth]
    sizes = [np.abs(truth.correction - np.eye(2, 3)).mean() for truth in truths]
    return raw / pairs[int(np.argmax(sizes))].unstable.path


def test_a_shaky_file_comes_out_steadier_without_borders(
    tiny_raw: Path, untrained: Checkpoint, tmp_path: Path
) -> None:
    source = shakiest(tiny_raw)
    done, phases = stabilize(source, tmp_path / "out.mp4", untrained)
    assert phases == {"analyze": 40, "render": 40}
    assert done.num_frames == 40
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert (before.width, before.height, before.num_frames) == (
        after.width,
        after.height,
        after.num_frames,
    )
    score = score_video(read_frames(source), read_frames(tmp_path / "out.mp4"))
    assert score.output.jitter_px < 0.5 * score.input.jitter_px
    assert score.crop == pytest.approx(done.zoom, abs=0.02)
    assert score.distortion_worst > 0.98
    jitter = [
        np.diff(path[:, :2], n=2, axis=0).std() for path in (done.input_path, done.output_path)
    ]
    assert jitter[1] < 0.5 * jitter[0]


def test_crop_is_as_asked(tiny_raw: Path, untrained: Checkpoint, tmp_path: Path) -> None:
    source = shakiest(tiny_raw)
    auto, _ = stabilize(source, tmp_path / "a.mp4", untrained, crop=Crop("auto", 0.05))
    assert 0.95 - 1e-9 <= auto.zoom <= 1
    fixed, _ = stabilize(source, tmp_path / "b.mp4", untrained, crop=Crop("fixed", 0.2))
    assert fixed.zoom == pytest.approx(0.8)
    none, _ = stabilize(source, tmp_path / "c.mp4", untrained, crop=Crop("none", 0.3))
    assert none.zoom == 1


def test_strength_zero_gives_the_video_back(
    tiny_raw: Path, untrained: Checkpoint, tmp_path: Path
) -> None:
    source = shakiest(tiny_raw)
    done, _ = stabilize(source, tmp_path / "out.mp4", untrained, strength=0.0)
    assert done.zoom == 1
    for before, after in zip(read_frames(source), read_frames(tmp_path / "out.mp4"), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 4


def test_weights_of_the_fc_head_are_refused(tiny_raw: Path, untrained: Checkpoint) -> None:
    model = untrained.params.model.model_copy(update={"head": "fc"})
    params = untrained.params.model_copy(update={"model": model})
    other = dataclasses.replace(untrained, params=params)
    with pytest.raises(CheckpointError, match="use head: motion"):
        stabilize(shakiest(tiny_raw), tiny_raw / "x.mp4", other)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_output_says_which_weights_made_it(
    tiny_raw: Path, untrained: Checkpoint, tmp_path: Path, suffix: str
) -> None:
    trained = dataclasses.replace(untrained, run_id="0123456789abcdef")
    wanted = Origin("0123456789abcdef", untrained.generator_sha256())
    plain, titled = shakiest(tiny_raw), tmp_path / f"titled{suffix}"
    rewrite_planes(
        plain, titled, lambda frames: frames, crf=30, preset="ultrafast", comment="Über\nSee; 1"
    )
    for source, comment in ((plain, ""), (titled, "Über\nSee; 1\n")):
        stabilize(source, tmp_path / f"out{suffix}", trained)
        found = read_comment(tmp_path / f"out{suffix}")
        assert found == f"{comment}{wanted}"
        assert Origin.find(found) == wanted
    # Stabilized twice: both are said, the last one counts.
    stabilize(tmp_path / f"out{suffix}", tmp_path / f"again{suffix}", untrained)
    found = read_comment(tmp_path / f"again{suffix}")
    assert found == f"Über\nSee; 1\n{wanted}\n{Origin('', untrained.generator_sha256())}"
    assert Origin.find(found) == Origin("", untrained.generator_sha256())
