"""What is measured is what `deepstab stabilize` makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepstab.api import parse_crop
from deepstab.config import Params
from deepstab.data.manifest import Manifest, VideoPair
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME
from deepstab.evaluation.corrections import Inputs, correct_video, initial_generator
from deepstab.evaluation.results import ROWS
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.generator import StabGenerator
from deepstab.stabilization.whole_video import (
    AUTO_CROP_FRACTION,
    Crop,
    Encoding,
    Smoothing,
    stabilize_video,
    warp_frame,
)
from deepstab.video.frames import read_frames


@pytest.fixture
def pair(tiny_raw: Path) -> VideoPair:
    (pair,) = Manifest.load(tiny_raw / MANIFEST_NAME).of_split("test")
    return pair


def plain_regressor(untrained: Checkpoint, params: Params) -> Checkpoint:
    """The other head as initialized: it changes nothing."""
    model = params.model.model_copy(update={"head": "fc"})
    made_with = {**untrained.made_with, "model": model.model_dump(mode="json")}
    network = untrained.params.model_copy(update={"model": model})
    weights = StabGenerator(model).state_dict()
    return replace(untrained, params=network, made_with=made_with, generator=weights)


def inputs_of(checkpoint: Checkpoint, raw: Path, index: ShardIndex, folder: Path) -> Inputs:
    checkpoints.save(checkpoint.as_tree(), folder / "best.pth")
    return Inputs(raw=raw, shards=index.folder, checkpoint=folder / "best.pth")


def test_the_network_is_shown_as_the_command_line_stabilizes(
    pair: VideoPair,
    untrained: Checkpoint,
    tiny_raw: Path,
    tiny_index: ShardIndex,
    tmp_path: Path,
) -> None:
    inputs = inputs_of(untrained, tiny_raw, tiny_index, tmp_path)
    corrections = correct_video(pair, inputs, window_stride=6)
    assert set(corrections) == set(ROWS)
    stabilized = corrections["stabilized"]
    assert parse_crop("auto") == ("auto", AUTO_CROP_FRACTION)
    source, shipped = tiny_raw / pair.unstable.path, tmp_path / "out.mp4"
    done = stabilize_video(
        source,
        shipped,
        network=untrained.network(),
        smoothing=Smoothing(Crop("auto", AUTO_CROP_FRACTION)),
        encoding=Encoding(crf=0, preset="ultrafast"),
        on_frame=lambda _: None,
    )
    assert done.zoom < 0.999
    for made, frame, theta in zip(
        read_frames(shipped), read_frames(source), stabilized.shown, strict=True
    ):
        # Chroma is warped at half size there, and in RGB here.
        assert np.abs(made.astype(float) - warp_frame(frame, theta)).mean() < 1.5
    zoom = np.sqrt(
        np.linalg.det(stabilized.shown[:, :, :2]) / np.linalg.det(stabilized.unzoomed[:, :, :2])
    )
    np.testing.assert_allclose(zoom, done.zoom, rtol=1e-9)
    assert np.array_equal(stabilized.shown[:, :, 2], stabilized.unzoomed[:, :, 2])


def test_untrained_is_the_seeds_generator_and_leaves_the_random_numbers(
    untrained: Checkpoint,
) -> None:
    before = torch.get_rng_state()
    made = initial_generator(untrained).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(untrained.made_with["seed"])
    expected = StabGenerator(untrained.params.model).state_dict()
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert any(not torch.equal(made[name], untrained.generator[name]) for name in expected)


def test_a_plain_regressor_has_its_windows_blended(
    pair: VideoPair,
    untrained: Checkpoint,
    tiny_raw: Path,
    tiny_index: ShardIndex,
    tiny_params: Params,
    tmp_path: Path,
) -> None:
    checkpoint = plain_regressor(untrained, tiny_params)
    inputs = inputs_of(checkpoint, tiny_raw, tiny_index, tmp_path)
    corrections = correct_video(pair, inputs, window_stride=6)
    for row in ("untrained", "stabilized"):
        expected = np.broadcast_to(np.eye(2, 3), (pair.num_frames, 2, 3))
        np.testing.assert_allclose(corrections[row].shown, expected, atol=1e-6)
        assert corrections[row].unzoomed is corrections[row].shown
