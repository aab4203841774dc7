"""Motion of whole videos: in pieces, and all at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepstab.config import ModelParams, Params
from deepstab.image import Image
from deepstab.models.generator import MotionHead, StabGenerator, motion_seer
from deepstab.stabilization import estimates
from deepstab.stabilization.estimates import VideoMotion, estimate_motion


@pytest.fixture(scope="module")
def model(tiny_params: Params) -> ModelParams:
    return tiny_params.model


def flickering(num_frames: int) -> Iterator[tuple[Image, NDArray[np.float32]]]:
    """One picture in another light in every frame, and flow that departs from cell to cell."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 100, (32, 32, 3))
    for _ in range(num_frames):
        flow = np.kron(rng.normal(0, 0.3, (8, 8, 2)), np.ones((4, 4, 1)))
        yield (picture + rng.integers(0, 150)).astype(np.uint8), flow.astype(np.float32)


def taught(model: ModelParams, learned_steps: int) -> StabGenerator:
    """A generator whose every layer has a say."""
    steps = {"reweighting_steps": 6, "learned_steps": learned_steps}
    generator = StabGenerator(model.model_copy(update=steps)).eval()
    assert isinstance(generator.head, MotionHead)
    torch.nn.init.normal_(generator.head.reweighter.change.weight)
    return generator


def streamed(
    generator: StabGenerator, num_frames: int, context_frames: int, at_once: int
) -> VideoMotion:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "FRAMES_AT_ONCE", at_once)
        return estimate_motion(
            flickering(num_frames),
            motion_seer(generator),
            aspect=1.5,
            context_frames=context_frames,
        )


@pytest.mark.parametrize("learned_steps", [1, 2, 3])
def test_in_pieces_it_is_the_same_as_all_at_once(model: ModelParams, learned_steps: int) -> None:
    # A frame's evidence comes from it and the one before it, and every learned step looks one
    # frame further to either side. With a single frame of context it is not the same.
    generator = taught(model, learned_steps)
    whole = streamed(generator, 40, 1, at_once=99)
    pieces = streamed(generator, 40, learned_steps + 1, at_once=12)
    np.testing.assert_allclose(pieces.motion, whole.motion, atol=1e-6)
    np.testing.assert_allclose(pieces.wobble, whole.wobble, atol=1e-5)
    too_few = streamed(generator, 40, 1, at_once=12)
    assert np.abs(too_few.motion - whole.motion).max() > 2e-5


@pytest.mark.parametrize(("num_frames", "lengths"), [(11, {11}), (12, {12}), (50, {12})])
def test_the_network_sees_windows_of_one_length_in_a_thread(
    model: ModelParams, num_frames: int, lengths: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "FRAMES_AT_ONCE", 12)
    see_motion, seen = motion_seer(taught(model, 1)), set()

    def see(frames: Image, flow: NDArray[np.float32], aspect: float) -> Any:
        seen.add(len(frames))
        assert threading.current_thread() is not threading.main_thread()
        return see_motion(frames, flow, aspect)

    estimate_motion(flickering(num_frames), see, aspect=1.5, context_frames=2)
    assert seen == lengths


@pytest.mark.parametrize("num_frames", [1, 11, 12, 13, 14, 15, 19, 20, 21, 22, 41])
def test_no_frame_is_lost_or_told_twice(model: ModelParams, num_frames: int) -> None:
    generator = taught(model, 1)
    whole = streamed(generator, num_frames, 2, at_once=99)
    pieces = streamed(generator, num_frames, 2, at_once=12)
    assert pieces.motion.shape == (num_frames, 4)
    assert pieces.wobble.shape == (num_frames, 6, 2)
    np.testing.assert_allclose(pieces.motion, whole.motion, atol=2e-5)


def test_the_aspect_is_kept_and_cuts_are_found(model: ModelParams) -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    still = np.zeros((32, 32, 2), np.float32)
    found = estimate_motion(
        [(frame, still) for frame in [one] * 5 + [other] * 5],
        motion_seer(StabGenerator(model).eval()),
        aspect=1.5,
        context_frames=2,
    )
    assert found.aspect == 1.5
    assert found.cuts == [5]
    np.testing.assert_allclose(found.motion, 0, atol=1e-6)
