from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch

from deepstab.config import FlightParams, Params
from deepstab.data import flights
from deepstab.data.manifest import Manifest
from deepstab.data.sources import MANIFEST_NAME
from deepstab.errors import DataError
from deepstab.evaluation.measure import true_residual
from deepstab.files import sha256_of
from deepstab.stabilize.whole_video import warp_frame
from deepstab.video.frames import read_frames


@pytest.fixture(scope="module")
def params(tiny_params: Params) -> FlightParams:
    return tiny_params.data.flights


def planned(params: FlightParams, seed: int) -> flights.Flight:
    photos = [skimage.data.astronaut(), skimage.data.coffee()]
    return flights.plan_flight(*photos, params=params, rng=np.random.default_rng(seed))


def test_the_true_correction_turns_the_shaken_video_into_the_stable_one(tiny_raw: Path) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    for pair in manifest.pairs[:3]:
        assert pair.truth is not None
        thetas = np.load(tiny_raw / pair.truth)
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


def test_shake_has_the_drawn_amplitude_and_band(params: FlightParams) -> None:
    wide = params.model_copy(
        update={"num_frames": 3000, "shake_min": 0.02, "shake_max": 0.02, "frame_rate": 30.0}
    )
    shake = planned(wide, 5).shake
    assert np.std(shake[:, 0]) == pytest.approx(0.02 * wide.width, rel=0.1)
    spectrum = np.abs(np.fft.rfft(shake[:, 0])) ** 2
    frequencies = np.fft.rfftfreq(3000, 1 / 30)
    inside = spectrum[(frequencies > 0.9) & (frequencies < 12.1)].sum()
    assert inside > 0.98 * spectrum[1:].sum()


def test_the_stable_path_is_smooth_beside_the_shake(params: FlightParams) -> None:
    for seed in range(5):
        flight = planned(params, seed)
        smooth = np.abs(np.diff(flight.path[:, :2], n=2, axis=0)).mean()
        assert smooth < 0.15 * np.abs(np.diff(flight.shake[:, :2], n=2, axis=0)).mean()


def test_no_correction_leaves_all_the_shake_and_the_true_one_none(params: FlightParams) -> None:
    true = flights.true_correction(planned(params, 1), params=params)
    corrections = {"none": np.broadcast_to(np.eye(2, 3), true.shape), "true": true}
    left = true_residual(corrections, torch.from_numpy(true), aspect=1.5)
    assert left["true_jitter_px"]["none"] > 1
    assert left["true_jitter_px"]["true"] < 1e-9
    assert left["true_error_px"]["true"] < 1e-9


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, params: FlightParams) -> None:
    few = params.model_copy(update={"num_flights": 3, "num_frames": 32})
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        flights.render_flights(tmp_path / name, params=few, seed=seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 9
    for file in files:
        assert sha256_of(tmp_path / "a" / file) == sha256_of(tmp_path / "b" / file)
        assert sha256_of(tmp_path / "a" / file) != sha256_of(tmp_path / "c" / file)


def test_photos_of_a_folder_and_its_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no jpg, png or tif images"):
        flights.photo_paths(str(tmp_path / "absent"))
    (tmp_path / "ünï.png").write_bytes(cv2.imencode(".png", skimage.data.camera())[1].tobytes())
    added = flights.photo_paths(str(tmp_path))[len(flights.photo_paths("skimage")) :]
    assert [path.name for path in added] == ["ünï.png"]
    assert len(flights.photo_paths("skimage")) >= 12
    assert all(path.is_file() for path in flights.photo_paths("skimage"))
