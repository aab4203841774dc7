from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deepstab.stabilize.planning import choose_plan, plan_corrections


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    num_frames=st.integers(1, 80),
    log_aspect=st.floats(-2, 2),
    log10_shake=st.floats(-6, 0.5),
    pan=st.floats(0, 10),
    crop=st.floats(1e-4, 0.5),
    period=st.floats(0, 500),
)
def test_no_plan_shows_what_was_not_filmed(
    seed: int,
    num_frames: int,
    log_aspect: float,
    log10_shake: float,
    pan: float,
    crop: float,
    period: float,
) -> None:
    path = np.random.default_rng(seed).normal(0, 10**log10_shake, (num_frames, 4))
    motion = np.diff(path * [1, 1, 0.3, 0.1], axis=0, prepend=0)
    motion[:, 0] += pan
    plan = plan_corrections(
        motion, aspect=float(np.exp(log_aspect)), period=period, least_visible=1 - crop, cuts=[]
    )
    chosen = choose_plan(
        motion, aspect=float(np.exp(log_aspect)), period=period, most_cropped=crop, cuts=[]
    )
    for found in (plan, chosen):
        assert np.isfinite(found.turn).all()
        assert np.isfinite(found.shift).all()
        assert 1 - crop - 1e-9 <= found.zoom <= 1
