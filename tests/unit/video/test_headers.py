"""Sizes that headers declare."""

import pytest

from deepstab.video.headers import declared_size
from tests.unit.video.conftest import make_video


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mkv", "libx264")])
def test_the_size_declared_is_the_size_there_is(tmp_path, name, codec):
    path = make_video(tmp_path / name, codec=codec)
    assert abs(declared_size(path) - path.stat().st_size) <= 8
    path.write_bytes(path.read_bytes()[:2000])
    assert declared_size(path) > 2000


def test_other_formats_declare_none(tmp_path):
    assert declared_size(make_video(tmp_path / "a.mp4")) is None
    (tmp_path / "b.avi").write_bytes(b"")
    assert declared_size(tmp_path / "b.avi") is None
