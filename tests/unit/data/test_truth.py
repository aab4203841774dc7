from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepstab.data.truth import Truth
from deepstab.errors import DataError


@pytest.fixture
def truth() -> Truth:
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(5, 4)).astype(np.float32)
    motion[3] = np.nan
    return Truth(rng.normal(size=(5, 2, 3)), motion, 0.4)


def test_what_is_read_is_what_was_written(truth: Truth, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        truth.save(tmp_path / name)
    read = Truth.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.correction, truth.correction)
    np.testing.assert_array_equal(read.motion, truth.motion)
    assert read.motion.dtype == np.float32
    assert read.readout == 0.4
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_missing_or_damaged_file_is_one_line(truth: Truth, tmp_path: Path) -> None:
    path = tmp_path / "1.npz"
    truth.save(path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for content in (None, b"", b"PK", whole[:200], (tmp_path / "other.npz").read_bytes()):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match="run the download stage again") as caught:
            Truth.load(path)
        assert "\n" not in str(caught.value)
