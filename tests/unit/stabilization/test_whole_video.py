from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage
from numpy.typing import NDArray

from deepstab.data.flow import with_flow
from deepstab.data.manifest import Manifest
from deepstab.data.sources import MANIFEST_NAME
from deepstab.data.truth import Truth
from deepstab.errors import CheckpointError
from deepstab.metrics.stability import score_video
from deepstab.metrics.track import track_jitter
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.generator import StabGenerator
from deepstab.models.origin import Origin
from deepstab.stabilization.estimates import estimate_motion
from deepstab.stabilization.whole_video import (
    Crop,
    Encoding,
    Smoothing,
    Stabilization,
    plan_motion,
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
    # x -> x + .1 x^2: toward both sides it looks further right; a ramp shows how far.
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (10, 1))
    bent = np.array([[1.0, 0, 0, 0.1, 0, 0], [0, 1.0, 0, 0, 0, 0]])
    x = (2 * np.arange(100) + 1) / 100 - 1
    looked_at = ((x + 0.1 * x**2 + 1) * 50 - 0.5).clip(0, 99)
    assert np.abs(warp_frame(ramp, bent) - 2 * looked_at).max() <= 1


def rolling_shutter(num_frames: int) -> list[NDArray[np.uint8]]:
    """A photo that shakes quickly while the rows of a frame are read, one after the other."""
    photo = cv2.resize(skimage.data.astronaut(), (480, 360), interpolation=cv2.INTER_AREA)
    columns, rows = np.meshgrid(np.arange(256, dtype=np.float32), np.arange(192, dtype=np.float32))
    frames = []
    for number in range(num_frames):
        time = number + 0.8 * (rows / 192 - 0.5)
        at_x = columns + 112 + 4 * np.sin(2 * np.pi * time / 5.3)
        at_y = rows + 84 + 2 * np.cos(2 * np.pi * time / 7.1)
        maps = at_x.astype(np.float32), at_y.astype(np.float32)
        frames.append(np.asarray(cv2.remap(photo, *maps, cv2.INTER_CUBIC), np.uint8))
    return frames


def test_a_rolling_shutter_wobbles_less_than_without_its_wobble(untrained: Checkpoint) -> None:
    frames = rolling_shutter(32)
    network = untrained.params
    flow = network.flow.model_copy(update={"width": 128, "height": 128})
    small = [cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA) for frame in frames]
    moved = estimate_motion(
        with_flow(iter(small), flow),  # type: ignore[arg-type]
        untrained.network().see_motion,
        aspect=256 / 192,
        context_frames=network.model.learned_steps + 1,
    )
    planned = plan_motion(
        moved, Crop("auto", 0.2), period=60, wobble_sigma=network.model.wobble_sigma
    )
    straight = dataclasses.replace(planned, wobble=np.zeros_like(planned.wobble))
    left = {
        name: track_jitter(
            warp_frame(frame, theta) for frame, theta in zip(frames, plan.thetas(), strict=True)
        )
        for name, plan in (("bent", planned), ("straight", straight))
    }
    for tracker in ("lucas-kanade", "dis"):
        bent, without = left["bent"][tracker], left["straight"][tracker]
        assert bent.beyond_similarity_px < 0.8 * without.beyond_similarity_px
        assert bent.jitter_px < without.jitter_px


def stabilize(
    source: Path, destination: Path, untrained: Checkpoint, **settings: Any
) -> tuple[Stabilization, Counter[str]]:
    phases: Counter[str] = Counter()
    done = stabilize_video(
        source,
        destination,
        network=untrained.network(),
        smoothing=Smoothing(
            settings.get("crop", Crop("auto", 0.25)), settings.get("strength", 1.0)
        ),
        encoding=Encoding(crf=12, preset="veryfast"),
        on_frame=lambda phase: phases.update([phase]),
    )
    return done, phases


def shakiest(raw: Path) -> Path:
    pairs = Manifest.load(raw / MANIFEST_NAME).pairs
    truths = [Truth.load(raw / pair.truth.path) for pair in pairs if pair.truth is not None]
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
    weights = StabGenerator(model).state_dict()
    other = dataclasses.replace(untrained, params=params, generator=weights)
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
