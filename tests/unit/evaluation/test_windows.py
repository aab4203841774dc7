"""Thetas of whole videos from windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deepstab.config import ModelParams, Params
from deepstab.evaluation.windows import estimate_thetas
from deepstab.models.generator import StabGenerator


@pytest.fixture(scope="module")
def model(tiny_params: Params) -> ModelParams:
    return tiny_params.model


def thetas_of(generator: StabGenerator, flow: Tensor) -> np.ndarray:
    def read_window(start: int, num_frames: int) -> tuple[Tensor, Tensor]:
        window = slice(start, start + num_frames)
        return torch.full((3, num_frames, 64, 64), 0.5), flow[:, window]

    return estimate_thetas(
        generator,
        read_window,
        num_frames=flow.shape[1],
        aspect=1.5,
        clip_length=12,
        window_stride=3,
    )


@pytest.mark.parametrize("num_frames", [1, 2, 11, 12, 13, 40])
def test_one_theta_per_frame_whatever_the_length(model: ModelParams, num_frames: int) -> None:
    flow = torch.randn(2, num_frames, 64, 64)
    thetas = thetas_of(StabGenerator(model).eval(), flow)
    assert thetas.shape == (num_frames, 2, 3)
    assert np.isfinite(thetas).all()


def test_no_jump_at_the_seams_of_windows(model: ModelParams) -> None:
    # A slow sway over many windows: the blended correction must be as smooth as the path.
    times = torch.arange(60.0)
    motion = 0.5 * torch.cos(2 * torch.pi * times / 40)
    flow = torch.zeros(2, 60, 64, 64)
    flow[0] = motion[:, None, None]
    thetas = thetas_of(StabGenerator(model).eval(), flow)
    shift_px = thetas[:, 0, 2] * 32
    steps = np.abs(np.diff(shift_px[12:-12], n=2))
    assert steps.max() < 0.1
