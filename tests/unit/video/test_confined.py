"""Real child processes: one that answers, one that takes all memory, one that hangs, one that dies.

What the children run are functions of this module.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from deepstab.errors import VideoError
from deepstab.files import whole_or_absent
from deepstab.video.confined import Confinement, say
from deepstab.video.frames import probe, read_frames
from deepstab.video.limits import Limits
from tests.unit.video.conftest import make_video

ROOT = Path(__file__).resolve().parents[3]
MIB = 2**20
ROOMY = Confinement(memory_bytes=2048 * MIB, time_s=120)
TIGHT = Confinement(memory_bytes=256 * MIB, time_s=120)


def write_and(destination: Path, ending: str) -> str:
    """Begin a file and another in the temporary folder, and do not come to their ends."""
    with whole_or_absent(destination) as partial, tempfile.NamedTemporaryFile() as scratch:
        partial.write_bytes(b"half")
        destination.with_name("scratch").write_text(scratch.name)
        match ending:
            case "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
                time.sleep(600)
            case "hog":
                hoard = []
                while True:
                    hoard.append(np.ones(MIB))
            case "hog at once":
                return "reached" + str(np.ones(2**40).sum())
            case "libav":
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            case "crash":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "abort":
                os.abort()
            case "refuse":
                raise VideoError(f"video {destination} is no good; give another")
            case "fail":
                raise ZeroDivisionError("a fault of ours")
    return "whole"


ENDINGS = {
    "hang": (VideoError, "takes more than the 1 s allowed"),
    "hog": (VideoError, f"takes more than the {256 * MIB} bytes of memory allowed"),
    "hog at once": (VideoError, f"takes more than the {256 * MIB} bytes of memory allowed"),
    "libav": (VideoError, f"takes more than the {256 * MIB} bytes of memory allowed"),
    "crash": (VideoError, r"broke off \(SIGSEGV\)"),
    "abort": (VideoError, r"broke off \(SIGABRT\)"),
    "exit": (VideoError, r"broke off \(exit code 3\)"),
    "refuse": (VideoError, "is no good"),
    "fail": (ZeroDivisionError, "a fault of ours"),
}


def spawned(process: psutil.Process | None = None) -> list[psutil.Process]:
    """Children that make calls, of this process or another; multiprocessing has its own beside."""
    found = []
    for child in (process or psutil.Process()).children():
        with suppress(psutil.NoSuchProcess):
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


def say_and_hang(path: Path) -> None:
    say("begun")
    time.sleep(60)


def test_what_is_said_comes_at_once_and_closing_kills(tmp_path: Path) -> None:
    steps = ROOMY.steps(say_and_hang, tmp_path / "said")
    assert next(step for step in steps if step is not None) == "begun"
    (child,) = spawned()
    steps.close()
    assert not child.is_running()


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_does_not_end_well_is_one_line_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    destination = tmp_path / "out.mp4"
    destination.write_bytes(b"as it was")
    bystander = tmp_path / ".deepstab-0123456789abcdef.part"
    bystander.write_bytes(b"another's")
    error, message = ENDINGS[ending]
    confined = Confinement(memory_bytes=256 * MIB, time_s=1) if ending == "hang" else TIGHT
    others = set(psutil.Process().children(recursive=True))
    with pytest.raises(error, match=message) as caught:
        confined.run(write_and, destination, ending)
    if error is VideoError:
        assert str(destination) in str(caught.value)
        assert "\n" not in str(caught.value)
    scratch = Path((tmp_path / "scratch").read_text())
    assert not scratch.exists()
    assert not scratch.parent.exists()
    assert destination.read_bytes() == b"as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "scratch", bystander.name}
    running = set(psutil.Process().children(recursive=True)) - others
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in running)


def test_what_ends_well_is_answered(tmp_path: Path) -> None:
    assert TIGHT.run(write_and, tmp_path / "out.mp4", "well") == "whole"
    assert (tmp_path / "out.mp4").read_bytes() == b"half"


def test_a_video_is_probed_and_refused_as_without(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    assert ROOMY.run(probe, path) == probe(path)
    with pytest.raises(VideoError, match="more than the 100 pixels"):
        ROOMY.run(probe, path, limits=Limits(num_pixels=100))


def all_frames(path: Path) -> int:
    return len(list(read_frames(path, size=(2560, 1440))))


def test_frames_that_fill_the_memory(tmp_path: Path) -> None:
    """40 frames of 11 MB."""
    path = make_video(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=f"more than the {256 * MIB} bytes|allocate memory"):
        TIGHT.run(all_frames, path)
    assert ROOMY.run(all_frames, path) == 40


def start_a_child(pid_file: Path) -> None:
    child = subprocess.Popen(["sleep", "600"])
    pid_file.write_text(str(child.pid))
    os._exit(0)


def test_what_a_child_started_is_gone(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="broke off"):
        TIGHT.run(start_a_child, tmp_path / "pid")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hang_and_tell(pid_file: Path) -> None:
    pid_file.write_text(str(os.getpid()))
    time.sleep(600)


SCRIPT = """
import sys
from pathlib import Path
from deepstab.video.confined import Confinement
from tests.unit.video.test_confined import hang_and_tell
if __name__ == "__main__":
    Confinement(memory_bytes=2**30, time_s=2).run(hang_and_tell, Path(sys.argv[1]))
"""


def test_a_child_ends_where_its_parent_was_killed(tmp_path: Path) -> None:
    script, pid_file = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    deadline = time.monotonic() + 60
    with subprocess.Popen([sys.executable, str(script), str(pid_file)], env=environment) as parent:
        while not pid_file.exists() or not pid_file.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.kill()
    pid = int(pid_file.read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("memory", "time_s"), [(0, 1), (1, 0), (1, float("nan"))])
def test_limits_that_are_none(memory: int, time_s: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Confinement(memory_bytes=memory, time_s=time_s)
