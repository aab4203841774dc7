"""The installed command on real files, in a process of its own."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint, load_weights
from deepstab.models.origin import Origin
from deepstab.models.shipping import WEIGHTS
from deepstab.video.rewrite import rewrite_planes
from tests.conftest import ROOT

COMMAND = Path(sys.executable).with_name("deepstab")
WIDTH, HEIGHT, NUM_FRAMES = 192, 128, 40
HEAVY = {"torch", "av", "cv2", "numpy", "mlflow", "matplotlib", "skimage"}


def deepstab(
    *arguments: object, max_file_bytes: int | None = None, **environment: str
) -> subprocess.CompletedProcess:
    def limit() -> None:
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

    return subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=limit,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


def shaken(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A window of a photo that jumps by up to 4 px, another way in every frame."""
    # Without black, which would count as border.
    photo = np.maximum(data.astronaut(), 40)
    photo = cv2.resize(photo, (width * 2, height * 2), interpolation=cv2.INTER_AREA)
    jumps = np.random.default_rng(index).integers(-4, 5, 2)
    top, left = height // 2 + jumps[0], width // 2 + jumps[1]
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def make_clip(
    path: Path,
    *,
    num_frames: int = NUM_FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a shaken clip with sound, by a way that shares no code with the package."""
    with av.open(str(path), "w", container_options=options or {}) as container:
        stream = container.add_stream("libx264", rate=30, time_base=Fraction(1, 30))
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.options = {"crf": "10", "preset": "ultrafast"}
        sound = container.add_stream("aac", rate=44100)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(shaken(index, *size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
        mux_sound(container, sound, num_frames / 30)
    return path


def mux_sound(
    container: av.container.OutputContainer, sound: av.AudioStream, seconds: float
) -> None:
    for block in range(int(seconds * 44100) // 1024):
        wave = np.sin(2 * np.pi * 440 * (np.arange(1024) + 1024 * block) / 44100)
        chunk = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp")
        chunk.sample_rate, chunk.pts = 44100, 1024 * block
        container.mux(sound.encode(chunk))
    container.mux(sound.encode())


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        found = [packet for packet in container.demux(stream) if packet.size]
        return sorted((packet.pts * stream.time_base, bytes(packet)) for packet in found)


def times(path: Path) -> list[Fraction]:
    return [time_s for time_s, _ in packets(path, "video")]


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "ein Flug über See.mp4")


@pytest.mark.parametrize(
    "command", [[], ["stabilize"], ["score"], ["lineage"], ["rerun"], ["promote"], ["app"]]
)
def test_help_waits_for_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\n"
        "from deepstab.cli.videos import main\n"
        f"sys.argv = ['deepstab', *{command}, '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        f"print('loaded', sorted({HEAVY} & set(sys.modules)), 'code', code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.splitlines()[-1] == "loaded [] code 0"


def test_it_runs_without_what_only_the_pipeline_needs(clip: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = [
        re.split("[^a-z-]", name)[0] for name in project["optional-dependencies"]["pipeline"]
    ]
    modules = [{"scikit-image": "skimage"}.get(name, name) for name in packages]
    assert {"torch", "mlflow", "skimage", "matplotlib"} <= set(modules)
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({modules}))\n"
        "from deepstab.cli.videos import main\n"
        "main()\n"
    )

    def light(*arguments: str | Path, ok: bool = True) -> str:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ok, done.stderr
        return done.stdout if ok else done.stderr

    steady, both = tmp_path / "steady.mp4", tmp_path / "both.mp4"
    light("stabilize", clip, steady, "--compare", both)
    found = json.loads(light("score", "--json", clip, steady))
    assert found["output"]["jitter_px"] < 0.6 * found["input"]["jitter_px"]
    assert both.exists()
    needed = "which this needs; pip install 'deepstab[pipeline]'\n"
    again, plot = tmp_path / "again.mp4", tmp_path / "path.png"
    assert light("stabilize", clip, again, "--plot", plot, ok=False).endswith(
        f"matplotlib is not installed, {needed}"
    )
    chain = json.loads(light("lineage", "--json", steady))
    assert chain["parameters"]["data"]["videos"]["folder"] == "material"
    for arguments in (
        ("stabilize", clip, again, "--weights", "best.pth"),
        ("lineage", "best.pth"),
        ("lineage", "a-run"),
    ):
        error = light(*arguments, ok=False)
        assert error.startswith("error: ")
        assert error.endswith(needed)
    assert not again.exists()


def test_a_video_becomes_steadier_and_keeps_the_rest(
    clip: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    before = clip.read_bytes()
    steady, both, plot = (tmp_path / name for name in ("steady.mp4", "both.mp4", "path.png"))
    done = deepstab(
        "stabilize",
        clip,
        steady,
        "--weights",
        untrained_weights,
        "--compare",
        both,
        "--plot",
        plot,
        "--preset",
        "ultrafast",
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        str(steady),
        str(plot),
        str(both),
    ]
    assert f"{NUM_FRAMES} frames" in done.stdout
    assert "Traceback" not in done.stderr
    for phase in ("analyze", "render", "compare"):
        assert f"{phase}: {NUM_FRAMES}/{NUM_FRAMES} frames" in done.stderr
    assert contents(tmp_path).keys() == {steady.name, both.name, plot.name}
    assert clip.read_bytes() == before

    assert times(steady) == times(both) == times(clip)
    assert packets(steady, "audio") == packets(both, "audio") == packets(clip, "audio")
    assert cv2.imread(str(plot)).shape[0] > 300

    # Left as filmed, right as stabilized, but for what compressing once more loses.
    pictures = frames(both)
    for original, stabilized, shown in zip(frames(clip), frames(steady), pictures, strict=True):
        assert shown.shape == (HEIGHT, 2 * WIDTH, 3)
        for side, wanted in ((shown[:, :WIDTH], original), (shown[:, WIDTH:], stabilized)):
            assert np.abs(side.astype(float) - wanted).mean() < 6

    scored = deepstab("score", clip, steady, "--json")
    assert scored.returncode == 0, scored.stderr
    found = json.loads(scored.stdout)
    assert found["output"]["jitter_px"] < 0.5 * found["input"]["jitter_px"]
    assert found["output"]["black_fraction"] == 0
    assert 0.7 < found["crop"] < 1
    assert found["distortion_worst"] > 0.95


def test_score_prints_a_table(clip: Path) -> None:
    done = deepstab("score", clip, clip)
    assert done.returncode == 0, done.stderr
    rows = {line.split("  ")[0].strip(): line.split()[-1] for line in done.stdout.splitlines()}
    assert float(rows["crop, 1 keeps all"]) == pytest.approx(1, abs=1e-6)
    assert float(rows["distortion, worst frame"]) == pytest.approx(1, abs=1e-6)
    assert len([line for line in done.stdout.splitlines() if line.strip()]) == 11


def test_score_of_videos_of_another_length_says_so(clip: Path, tmp_path: Path) -> None:
    shorter = make_clip(tmp_path / "short.mp4", num_frames=20)
    done = deepstab("score", clip, shorter)
    assert done.returncode == 1
    assert "the output ends after 20 frames" in error_line(done)


def error_line(done: subprocess.CompletedProcess) -> str:
    """The one line that says what is wrong, the last one."""
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in done.stderr
    return lines[-1]


@pytest.mark.parametrize(
    "command", [["lineage", "RUN"], ["rerun", "RUN"], ["promote", "RUN"], ["stabilize"]]
)
def test_a_store_that_is_away_is_one_line_within_seconds(
    clip: Path, tmp_path: Path, command: list[str]
) -> None:
    if command == ["stabilize"]:
        weights = ("--weights", "models:/deepstab-gan@champion")
        command = [*command, str(clip), str(tmp_path / "out.mp4"), *weights]
    if command[0] == "promote":
        command = [*command, "--params", str(ROOT / "params.yaml")]
    # Takes connections and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        done = deepstab(*command, MLFLOW_TRACKING_URI=uri)
    assert time.monotonic() - started < 30  # MLflow alone tries for minutes
    assert done.returncode == 1
    assert f"MLflow at {uri}: " in error_line(done)
    assert contents(tmp_path) == {}


def stabilized_with(generator_sha256: str, clip: Path, video: Path) -> None:
    rewrite_planes(
        clip,
        video,
        lambda frames: frames,
        crf=30,
        preset="ultrafast",
        comment=str(Origin("", generator_sha256)),
    )


def test_the_shipped_weights_tell_what_made_them(clip: Path, tmp_path: Path) -> None:
    video, shipped = tmp_path / "steady.mkv", load_weights(None)
    stabilized_with(shipped.generator_sha256(), clip, video)
    for path, facts in ((video, {"weights": "shipped with deepstab 0.1.0"}), (WEIGHTS, {})):
        done = deepstab("lineage", path, "--json")
        assert done.returncode == 0, done.stderr
        chain = json.loads(done.stdout)
        assert (facts | {"run": ""}).items() <= chain["file"].items()
        assert chain["data"]["source"] == "videos"
        assert chain["data"]["manifest_sha256"] == shipped.manifest_digest
        assert chain["checkpoint"]["epoch"] == str(shipped.epoch)
        assert re.fullmatch("[0-9a-f]{40}", chain["checkpoint"]["commit"])
        assert chain["checkpoint"]["generator_sha256"] == shipped.generator_sha256()
        assert chain["parameters"] == shipped.made_with


def test_a_file_says_what_it_knows_where_its_run_is_unknown(
    clip: Path, untrained: Checkpoint, tmp_path: Path
) -> None:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'none.db'}"}
    video, weights = tmp_path / "steady.mkv", tmp_path / "a.pth"
    stabilized_with("0" * 64, clip, video)
    checkpoints.save(dataclasses.replace(untrained, run_id="elsewhere").as_tree(), weights)
    for path, message, facts in (
        (video, "trained untracked", {"run": "", "generator_sha256": "0" * 64}),
        (weights, "there is no MLflow database", {"run": "elsewhere", "epoch": "1"}),
    ):
        done = deepstab("lineage", path, "--json", **store)
        assert done.returncode == 1
        assert message in error_line(done)
        said = json.loads(done.stdout)["file"]
        assert said["path"] == str(path)
        assert facts.items() <= said.items()


def empty(path: Path) -> Path:
    path.touch()
    return path


def text(path: Path) -> Path:
    path.write_text("not a video\n" * 100)
    return path


def cut_short(path: Path, options: dict[str, str]) -> Path:
    make_clip(path, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def only_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        mux_sound(container, container.add_stream("aac", rate=44100), 1)
    return path


BAD_INPUTS = {
    "missing": (lambda path: path, "does not exist"),
    "empty": (empty, "is empty"),
    "text": (text, "cannot be opened"),
    "cut short, index lost": (lambda path: cut_short(path, {}), "cannot be opened"),
    "cut short": (lambda path: cut_short(path, {"movflags": "faststart"}), "video .*bad.mp4 "),
    "only sound": (only_sound, "only sound"),
    "folder": (lambda path: path.mkdir() or path, "are of one video"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str, untrained_weights: Path, tmp_path: Path
) -> None:
    make, reason = BAD_INPUTS[name]
    bad = make(tmp_path / "bad.mp4")
    before = contents(tmp_path)
    out = tmp_path / "out.mp4"
    done = deepstab("stabilize", bad, out, "--weights", untrained_weights, "--plot", "p.png")
    assert done.returncode == 1
    assert re.search(reason, error_line(done))
    assert str(bad) in error_line(done)
    assert contents(tmp_path) == before


BAD_TARGETS = {
    "no folder": ("{folder}/nowhere/out.mp4", "No such file or directory"),
    "file as folder": ("{folder}/in.mp4/out.mp4", "Not a directory"),
    "folder": ("{folder}/there.mp4", "is a folder"),
    "suffix": ("{folder}/out.avi", ".avi is not one of"),
    "kernel's folder": ("/proc/out.mp4", "cannot be written"),
    "input": ("{folder}/in.mp4", "is both input and output"),
    "input by another way": ("{folder}/there.mp4/../in.mp4", "is both input and output"),
    "link to the input": ("{folder}/link.mp4", "is both input and output"),
    "link to another": ("{folder}/other.mp4", "is a link to"),
    "links in a circle": ("{folder}/circle.mp4", "is a link to"),
    "fifo": ("{folder}/fifo.mp4", "is no regular file"),
    "write-protected": ("{folder}/kept.mp4", "is write-protected"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_target_is_one_line_and_leaves_all_as_it_was(
    name: str, clip: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(clip.read_bytes())
    (tmp_path / "there.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "other.mp4").symlink_to(clip)
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "kept.mp4").write_bytes(b"kept")
    (tmp_path / "kept.mp4").chmod(0o444)
    before = contents(tmp_path)
    target, reason = BAD_TARGETS[name]
    target = target.format(folder=tmp_path)
    done = deepstab("stabilize", source, target, "--weights", untrained_weights)
    assert done.returncode == 1
    assert reason in error_line(done)
    assert contents(tmp_path) == before


def test_a_target_that_fills_up_is_one_line_and_the_old_file_stays(
    clip: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"what was there")
    before = contents(tmp_path)
    done = deepstab("stabilize", clip, out, "--weights", untrained_weights, max_file_bytes=8192)
    assert done.returncode == 1
    assert f"video {out} cannot be written" in error_line(done)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        *((["--crop", value], f"crop '{value}'") for value in ("80", "0", "-5", "nan", "wide", "")),
        (["--strength", "-1"], "strength -1 is not between"),
        (["--strength", "nan"], "strength nan is not between"),
        (["--weights", "nothing.pth"], "nothing.pth: no such"),
        (["--compare", "{out}"], "is to be written twice"),
        (["--compare", "{out}.gif"], ".gif is not one of"),
        (["--plot", "{out}.txt"], "does not end in .png"),
        (["--plot", "/nowhere/p.png"], "No such file or directory"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], reason: str, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    done = deepstab("stabilize", clip, out, *(value.format(out=out) for value in options))
    assert done.returncode == 1
    assert reason in error_line(done)
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    "arguments", [[], ["in.mp4", "out.mp4", "--crf", "52"], ["in.mp4", "out.mp4", "--preset", "x"]]
)
def test_wrong_usage_has_a_code_of_its_own(arguments: list[str]) -> None:
    done = deepstab("stabilize", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGQUIT, 131),
    ],
)
def test_what_is_interrupted_leaves_nothing(
    number: signal.Signals, code: int, untrained_weights: Path, tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "in.mp4", num_frames=150, size=(640, 480))
    before = contents(tmp_path)
    out = tmp_path / "out.mp4"
    arguments = ["stabilize", source, out, "--weights", untrained_weights, "--preset", "veryslow"]
    with subprocess.Popen(
        [str(COMMAND), *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a shell interrupts are ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and not list(tmp_path.glob(".deepstab-*")):
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert contents(tmp_path) == before


def test_a_name_with_a_newline_is_one_line(
    clip: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "a\nb.mp4", tmp_path / "c\nd.mp4"
    source.write_bytes(clip.read_bytes())
    done = deepstab("stabilize", source, out, "--weights", untrained_weights)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "c\\nd.mp4: " in line
    error = error_line(deepstab("score", source, tmp_path / "e\nf.mp4"))
    assert "e\\nf.mp4 does not exist" in error


@pytest.mark.parametrize("name", ["in.mkv", "in.webm"])
def test_transparency_that_is_lost_is_said(
    name: str, untrained_weights: Path, tmp_path: Path
) -> None:
    source, is_beside = tmp_path / name, name == "in.webm"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libvpx-vp9" if is_beside else "ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(shaken(index, 64, 48), "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuva420p")))
        container.mux(stream.encode(None))
    done = deepstab("stabilize", source, tmp_path / "o.mp4", "--weights", untrained_weights)
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "without its transparency" in warning
    assert ("written as 8-bit yuv420p" in warning) == (not is_beside)


def test_a_warning_is_one_line(untrained_weights: Path, tmp_path: Path) -> None:
    deep = make_clip(tmp_path / "deep.mp4", num_frames=14, pixel_format="yuv420p10le")
    done = deepstab(
        "stabilize",
        deep,
        tmp_path / "out.mp4",
        "--weights",
        untrained_weights,
        "--compare",
        tmp_path / "both.mp4",
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "pixel format yuv420p10le is written as 8-bit" in warnings[0]


def test_a_folder_that_was_killed_comes_out_the_same(clip: Path, tmp_path: Path) -> None:
    source, results, whole = (tmp_path / name for name in ("in", "out", "whole"))
    (source / "more").mkdir(parents=True)
    for name in ("a.mp4", "more/b.mp4"):
        shutil.copy(clip, source / name)
    (source / "broken.mkv").write_bytes(clip.read_bytes()[:3000])
    (source / "notes.txt").touch()
    command = [str(COMMAND), "stabilize", str(source)]
    fast = ["--preset", "ultrafast"]
    first = deepstab("stabilize", source, whole, *fast)
    assert first.returncode == 1
    assert "1 of 3 videos could not be stabilized" in first.stderr
    assert f"left out, no videos by their suffix: {source / 'notes.txt'}" in first.stdout
    process = subprocess.Popen([*command, str(results), *fast], stderr=subprocess.DEVNULL)
    while not (results / "stabilized.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert deepstab("stabilize", source, results, *fast).returncode == 1
    again = deepstab("stabilize", source, results, *fast)
    assert "3 videos, 2 of them done before" in again.stdout
    for name in ("a.mp4", "more/b.mp4", "stabilized.csv"):
        left, right = ((folder / name).read_text(errors="replace") for folder in (results, whole))
        assert left.replace(str(results), "") == right.replace(str(whole), "")
    rows = list(csv.DictReader((results / "stabilized.csv").read_text().splitlines()))
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert float(rows[0]["jitter after"]) < 0.6 * float(rows[0]["jitter before"])
