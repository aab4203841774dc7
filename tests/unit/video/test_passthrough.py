"""Sound, subtitles, fonts, tags and chapters come through a rewrite."""

import logging
import subprocess
from fractions import Fraction

import av
import pytest

from deepstab.video.frames import count_frames
from deepstab.video.rewrite import rewrite_video
from tests.unit.video.conftest import (
    FAST,
    identity,
    make_video,
    needs_ffmpeg,
    packets_of,
    video_times,
)


class TestPassthrough:
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
    def test_sound(self, tmp_path, suffix):
        source = make_video(tmp_path / "a.mp4", num_frames=60, audio_s=2.0)
        out = tmp_path / f"b{suffix}"
        rewrite_video(source, out, identity, **FAST)
        before, after = packets_of(source, "audio"), packets_of(out, "audio")
        assert len(before) > 80
        if suffix == ".mkv":
            # The encoder's warm-up before time zero, which mp4 hides, cannot be stored.
            before = [packet for packet in before if packet[0] >= 0]
            assert [p[2] for p in after] == [p[2] for p in before]
            gaps = [abs(a[0] - b[0]) for a, b in zip(after, before, strict=True)]
            assert max(gaps) <= Fraction(1, 1000)
        else:
            assert after == before
        with av.open(str(out)) as container:
            if suffix != ".mov":
                assert container.streams.audio[0].metadata["language"] == "fra"

    def test_sound_is_interleaved_under_a_long_look_ahead(self, tmp_path):
        source = make_video(tmp_path / "a.mp4", num_frames=300, audio_s=10.0)
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, lambda frames: iter(list(frames)), **FAST)
        ends = {}
        with av.open(str(out)) as container:
            order = sorted((p for p in container.demux() if p.size), key=lambda p: p.pos)
            for packet in order:
                ends[packet.stream.type] = float(packet.dts * packet.time_base)
                if len(ends) == 2:
                    assert abs(ends["video"] - ends["audio"]) < 1.5

    def test_subtitles(self, tmp_path, caplog):
        bare = make_video(tmp_path / "bare.mp4")
        source = tmp_path / "a.mp4"
        with av.open(str(bare)) as before, av.open(str(source), "w") as container:
            video = container.add_stream_from_template(before.streams.video[0], opaque=True)
            text = container.add_stream("mov_text")
            text.codec_context.subtitle_header = b"[Script Info]\n"
            for packet in before.demux(video=0):
                if packet.size:
                    packet.stream = video
                    container.mux(packet)
            words = "où".encode()
            subtitle = av.Packet(len(words).to_bytes(2, "big") + words)
            subtitle.stream, subtitle.time_base = text, Fraction(1, 1000)
            subtitle.pts = subtitle.dts = 200
            subtitle.duration = 500
            container.mux(subtitle)
        rewrite_video(source, tmp_path / "b.mp4", identity, **FAST)
        assert packets_of(tmp_path / "b.mp4", "subtitle") == packets_of(source, "subtitle")
        assert any(b"o\xc3\xb9" in p[2] for p in packets_of(source, "subtitle"))
        with caplog.at_level(logging.WARNING):
            rewrite_video(source, tmp_path / "b.mkv", identity, **FAST)
        assert "(subtitle, mov_text) is left out" in caplog.text
        assert "write .mp4 to keep it" in caplog.text
        assert count_frames(tmp_path / "b.mkv") == 40

    def test_tags_and_chapters(self, tmp_path):
        chapters = [
            {"id": i, "start": i * 500, "end": (i + 1) * 500, "time_base": Fraction(1, 1000)}
            | {"metadata": {"title": title}}
            for i, title in enumerate(["one", "zwölf"])
        ]
        metadata = {"creation_time": "2021-02-03T04:05:06.000000Z", "title": "Été"}
        source = make_video(tmp_path / "a.mp4", metadata=metadata, chapters=chapters)
        for out in (tmp_path / "b.mp4", tmp_path / "b.mkv"):
            rewrite_video(source, out, identity, **FAST)
            with av.open(str(out)) as container:
                assert container.metadata["creation_time"] == metadata["creation_time"]
                assert container.metadata["title"] == "Été"
                assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "zwölf"]

    @needs_ffmpeg
    def test_broadcast_clock_starts_at_zero(self, tmp_path):
        source = tmp_path / "a.ts"
        inputs = "ffmpeg -v error -f lavfi -i testsrc2=s=96x64:r=25:d=2 -f lavfi -i sine=d=2"
        subprocess.run([*inputs.split(), "-c:a", "aac", str(source)], check=True)
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, identity, **FAST)
        before, after = video_times(source), video_times(out)
        assert before[0] > 1
        assert 0 <= after[0] < 0.1
        shift = before[0] - after[0]
        assert after == [time - shift for time in before]
        sound_shift = packets_of(source, "audio")[0][0] - packets_of(out, "audio")[0][0]
        assert float(shift) == pytest.approx(float(sound_shift), abs=1e-4)

    @needs_ffmpeg
    def test_fonts_and_text_of_matroska(self, tmp_path):
        (tmp_path / "a.srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nhello\n")
        (tmp_path / "a.ttf").write_bytes(b"not really a font")
        source = tmp_path / "a.mkv"
        command = "ffmpeg -v error -f lavfi -i testsrc2=s=96x64:r=25:d=2 -i"
        attach = ["-attach", str(tmp_path / "a.ttf"), "-metadata:s:t", "mimetype=font/ttf"]
        subprocess.run(
            [*command.split(), str(tmp_path / "a.srt"), *attach, str(source)], check=True
        )
        out = tmp_path / "b.mkv"
        rewrite_video(source, out, identity, **FAST)
        with av.open(str(out)) as container:
            assert sorted(s.type for s in container.streams) == ["attachment", "subtitle", "video"]
            assert container.streams.attachments[0].data == b"not really a font"
        assert packets_of(out, "subtitle") == packets_of(source, "subtitle")
