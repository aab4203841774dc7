from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deepstab.evaluation import players
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.writer import write_video
from tests.unit.stabilize.test_before_after import MATRICES, as_played


def write(path: Path, *, num_frames: int, width: int, height: int) -> None:
    """Frames that are red on the left and blue on the right."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2, 0] = frame[:, width // 2 :, 2] = 255
    frames = (frame for _ in range(num_frames))
    write_video(path, frames, frame_rate=Fraction(25), crf=10)


@pytest.mark.parametrize(("width", "height"), [(100, 64), (1280, 720), (202, 601)])
def test_input_left_and_corrected_right_in_a_size_that_browsers_play(
    tmp_path: Path, width: int, height: int
) -> None:
    write(tmp_path / "in.mp4", num_frames=12, width=width, height=height)
    half_turn = np.broadcast_to([[-1.0, 0, 0], [0, -1.0, 0]], (12, 2, 3))
    for name in ("a.mp4", "b.mp4"):
        players.write_player(tmp_path / "in.mp4", half_turn, tmp_path / "new" / name)
    info = probe(tmp_path / "new/a.mp4")
    assert (info.pixel_format, info.frame_rate, info.num_frames) == ("yuv420p", 25, 12)
    assert max(info.width // 2, info.height) <= 480
    assert info.width / 2 / info.height == pytest.approx(width / height, rel=0.03)
    frame = next(read_frames(tmp_path / "new/a.mp4"))
    at = [round((number + 0.5) * info.width / 4) for number in range(4)]
    assert [int(frame[info.height // 2, x].argmax()) for x in at] == [0, 2, 2, 0]
    assert (tmp_path / "new/a.mp4").read_bytes() == (tmp_path / "new/b.mp4").read_bytes()


def test_a_long_video_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(players, "MAX_FRAMES", 7)
    write(tmp_path / "in.mp4", num_frames=12, width=64, height=64)
    thetas = np.broadcast_to(np.eye(2, 3), (12, 2, 3))
    players.write_player(tmp_path / "in.mp4", thetas, tmp_path / "out.mp4")
    assert count_frames(tmp_path / "out.mp4") == 7


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_both_sides_stand_as_ffmpeg_shows_the_input(tmp_path: Path, turn: int) -> None:
    coded, turned = (tmp_path / name for name in ("coded.mp4", "turned.mp4"))
    write(coded, num_frames=3, width=96, height=64)
    with av.open(str(coded)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix(MATRICES[turn])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    expected = as_played(turned)
    thetas = np.broadcast_to(np.eye(2, 3), (3, 2, 3))
    players.write_player(turned, thetas, tmp_path / "out.mp4")
    frame = next(read_frames(tmp_path / "out.mp4"))
    assert np.abs(frame.astype(int) - np.hstack([expected, expected])).mean() < 8
