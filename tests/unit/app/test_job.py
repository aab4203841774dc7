"""Names of results."""

from __future__ import annotations

import pytest

from deepstab.app.job import result_name


@pytest.mark.parametrize(
    ("upload", "name"),
    [
        ("clip.mov", "clip-steady.mp4"),
        ("../../etc/passwd", "passwd-steady.mp4"),
        ("a b.c'\"<x>\n.mp4", "a_b_c_x-steady.mp4"),
        ("Flug über See.mp4", "Flug_über_See-steady.mp4"),
        ("..mp4", "video-steady.mp4"),
        ("?.mp4", "video-steady.mp4"),
        ("x" * 300 + ".mp4", "x" * 80 + "-steady.mp4"),
    ],
)
def test_a_name_of_an_upload_does_no_harm(upload: str, name: str) -> None:
    assert result_name(upload) == name
