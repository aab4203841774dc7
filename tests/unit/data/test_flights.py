from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch

from deepstab.config import FaultParams, FlightParams, Params
from deepstab.data import flights
from deepstab.data.manifest import Manifest
from deepstab.data.rendering import Flight
from deepstab.data.sources import MANIFEST_NAME
from deepstab.data.truth import Truth
from deepstab.errors import DataError
from deepstab.evaluation.measure import true_residual
from deepstab.files import sha256_of
from deepstab.geometry import similarity_to_theta
from deepstab.stabilization.whole_video import warp_frame
from deepstab.video.frames import count_frames, probe, read_frames


@pytest.fixture(scope="module")
def params(tiny_params: Params) -> FlightParams:
    return tiny_params.data.flights


def planned(params: FlightParams, seed: int) -> Flight:
    return flights.plan_flight(
        skimage.data.astronaut(),
        skimage.data.coffee(),
        params=params,
        times_s=np.arange(params.num_frames) / params.frame_rate,
        size=(params.width, params.height),
        rng=np.random.default_rng(seed),
    )


def test_the_true_correction_turns_the_shaken_video_into_the_stable_one(tiny_raw: Path) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    for pair in manifest.pairs[:3]:
        assert pair.truth is not None
        thetas = Truth.load(tiny_raw / pair.truth.path).correction
        before, after, wrong = [], [], []
        for shaky, stable, theta in zip(
            read_frames(tiny_raw / pair.unstable.path),
            read_frames(tiny_raw / pair.stable.path),
            thetas,
            strict=True,
        ):
            inner = (slice(20, -20), slice(30, -30))
            blurred = [
                cv2.GaussianBlur(x, (0, 0), 2).astype(float)[inner]
                for x in (
                    shaky,
                    warp_frame(shaky, theta),
                    warp_frame(shaky, 2 * np.eye(2, 3) - theta),
                    stable,
                )
            ]
            before.append(np.abs(blurred[0] - blurred[3]).mean())
            after.append(np.abs(blurred[1] - blurred[3]).mean())
            wrong.append(np.abs(blurred[2] - blurred[3]).mean())
        assert np.mean(after) < 0.5 * np.mean(before) < 0.5 * np.mean(wrong)


def test_the_true_motion_is_what_the_frames_do(tiny_raw: Path) -> None:
    for pair in Manifest.load(tiny_raw / MANIFEST_NAME).pairs[:3]:
        assert pair.truth is not None
        motion = Truth.load(tiny_raw / pair.truth.path).motion
        assert not motion[0].any()
        size = (pair.unstable.width, pair.unstable.height)
        aspect = torch.tensor([size[0] / size[1]], dtype=torch.float64)
        thetas = similarity_to_theta(torch.from_numpy(motion[None]).double(), aspect)[0].numpy()
        frames = [
            cv2.GaussianBlur(frame, (0, 0), 2).astype(np.uint8)
            for frame in read_frames(tiny_raw / pair.unstable.path)
        ]
        inner, still = (slice(20, -20), slice(30, -30)), np.eye(2, 3)
        without, with_motion, backwards = (
            np.mean(
                [
                    np.abs(warp_frame(frames[t - 1], theta).astype(float) - frames[t])[inner].mean()
                    for t, theta in enumerate(moved)
                    if t > 0
                ]
            )
            for moved in (0 * thetas + still, thetas, 2 * still - thetas)
        )
        assert with_motion < 0.6 * without < 0.6 * backwards


def test_a_flight_with_every_fault_is_dark_slow_rolling_and_compressed(
    tmp_path: Path, params: FlightParams
) -> None:
    faulty = params.model_copy(
        update={
            "num_flights": 3,
            "faults": FaultParams(**dict.fromkeys(FaultParams.model_fields, 1.0)),
        }
    )
    _, truths = flights.render_flights(tmp_path, params=faulty, photos=Path("skimage"), seed=1)
    for name, path in truths.items():
        truth = Truth.load(tmp_path / path)
        assert 0 < truth.readout <= 0.8
        assert not np.isnan(truth.motion).any()
        stable, unstable = (tmp_path / side / f"{name}.mp4" for side in ("stable", "unstable"))
        assert float(probe(unstable).frame_rate) == pytest.approx(10)
        assert count_frames(unstable) == count_frames(stable) == len(truth.motion) == 40
        assert unstable.stat().st_size < stable.stat().st_size


def test_the_path_of_a_flight_is_smooth(params: FlightParams) -> None:
    for seed in range(5):
        flight = planned(params, seed)
        path_px = flight.path.shift / np.abs(flight.path.factor)
        # A shake of the smallest amplitude moves by a quarter of it from frame to frame and back.
        assert np.abs(np.diff(path_px, n=2)).mean() < 0.25 * params.shake_min * params.width


def test_own_motion_leads_from_the_first_view_along_the_path(params: FlightParams) -> None:
    flight = planned(params, 2)
    own, view = flight.own_motion, flight.path[0]
    assert (own.factor[0], own.shift[0]) == (1, 0)
    for t in range(1, len(flight.path)):
        view = view @ own[t]
        np.testing.assert_allclose(view.factor, flight.path.factor[t], rtol=1e-9)
        np.testing.assert_allclose(view.shift, flight.path.shift[t], atol=1e-6)


def test_what_is_near_runs_ahead_of_the_ground(params: FlightParams) -> None:
    deep = params.model_copy(update={"parallax": 1.0})
    flat = params.model_copy(update={"parallax": 0.0})
    for seed in range(2):
        num_moving = len(planned(flat, seed).objects)
        flight = planned(deep, seed)
        near = flight.objects[num_moving:]
        assert 1 <= len(near) <= 4
        camera = flight.path.shift - flight.path.shift[0]
        for item in near:
            # Against the camera, in proportion to its way.
            ahead = (item.positions - item.positions[0]) * camera.conj()
            assert (ahead.real <= 1e-9).all()
            np.testing.assert_allclose(ahead.imag, 0, atol=1e-6)


def test_no_correction_leaves_all_the_shake_and_the_true_one_none(tiny_raw: Path) -> None:
    truth = Manifest.load(tiny_raw / MANIFEST_NAME).pairs[0].truth
    assert truth is not None
    true = Truth.load(tiny_raw / truth.path).correction
    corrections = {"none": np.broadcast_to(np.eye(2, 3), true.shape), "true": true}
    left = true_residual(corrections, torch.from_numpy(true), aspect=1.5)
    assert left["true_jitter_px"]["none"] > 1
    assert left["true_jitter_px"]["true"] < 1e-9
    assert left["true_error_px"]["true"] < 1e-9


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, params: FlightParams) -> None:
    few = params.model_copy(update={"num_flights": 3, "num_frames": 32})
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        flights.render_flights(tmp_path / name, params=few, photos=Path("skimage"), seed=seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 9
    for file in files:
        assert sha256_of(tmp_path / "a" / file) == sha256_of(tmp_path / "b" / file)
        assert sha256_of(tmp_path / "a" / file) != sha256_of(tmp_path / "c" / file)


def test_photos_of_a_folder_and_its_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no jpg, png or tif images"):
        flights.photo_paths(tmp_path / "absent")
    (tmp_path / "ünï.png").write_bytes(cv2.imencode(".png", skimage.data.camera())[1].tobytes())
    added = flights.photo_paths(tmp_path)[len(flights.photo_paths(Path("skimage"))) :]
    assert [path.name for path in added] == ["ünï.png"]
    assert len(flights.photo_paths(Path("skimage"))) >= 12
    assert all(path.is_file() for path in flights.photo_paths(Path("skimage")))
