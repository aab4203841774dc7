"""The two functions for Python, on real video files."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage

import deepstab
from deepstab.errors import DeepStabError, ParameterError, VideoError
from deepstab.video.writer import write_video

NUM_FRAMES = 30


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "shaky.mp4"
    corners = np.random.default_rng(0).integers(100, 110, (NUM_FRAMES, 2))
    photo = skimage.data.astronaut()
    frames = (photo[y : y + 240, x : x + 320] for x, y in corners)
    write_video(path, frames, frame_rate=Fraction(25), crf=18)
    return path


def test_a_video_becomes_steadier(shaky: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    done = deepstab.stabilize(
        str(shaky), tmp_path / "out.mp4", crop="10", progress=lambda *news: told.append(news)
    )
    assert done.num_frames == NUM_FRAMES
    assert done.zoom == pytest.approx(0.9)
    counts = range(1, NUM_FRAMES + 1)
    assert told == [(phase, n, NUM_FRAMES) for phase in ("analyze", "render") for n in counts]
    found = deepstab.score(shaky, str(tmp_path / "out.mp4"))
    assert found.output.jitter_px < 0.5 * found.input.jitter_px


def test_what_is_wrong_is_an_error_of_its_kind(shaky: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with pytest.raises(ParameterError, match="crop 'much' is not"):
        deepstab.stabilize(shaky, out, crop="much")
    with pytest.raises(ParameterError, match="strength 11 is not"):
        deepstab.stabilize(shaky, out, strength=11)
    with pytest.raises(ParameterError, match="both input and output"):
        deepstab.stabilize(shaky, shaky)
    with pytest.raises(VideoError, match=r"no\.mp4"):
        deepstab.score(shaky, tmp_path / "no.mp4")
    with pytest.raises(DeepStabError, match=r"no\.pth"):
        deepstab.stabilize(shaky, out, weights="no.pth")
    with pytest.raises(AttributeError, match="nothing"):
        deepstab.nothing  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "cv2", "av", "numpy", "scipy", "openvino", "mlflow", "typer"}
    code = f"import sys, deepstab; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
