"""Trainings that have ended, until it is seen that DVC has entered their result in its lock.

DVC enters a stage after it ran. Where it is killed in between, it runs the stage again, and the
training, whose state is still there, goes on and is not done twice.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from deepstab.files import whole_or_absent
from deepstab.tracking.lockfile import has_recorded, md5_of

_NAME, _FORGOTTEN = "result", ".forgotten"
# By then DVC has entered a result or never will.
_MOST_S = 86_400


def keep_until_entered(state: Path, result: Path) -> None:
    """Note what a training has made in the folder of its state."""
    state.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(state / _NAME) as partial:
        partial.write_text(md5_of(result), encoding="ascii")


def forget_entered(states: Path, *, lock: Path, output: Path) -> None:
    """Remove the states of trainings whose result is in the lock, or that ended a day ago.

    Args:
        states: folder of the folders of states.
        lock: path of dvc.lock.
        output: the result, named as in dvc.yaml.
    """
    for note in states.glob(f"*/{_NAME}"):
        md5 = note.read_text(encoding="ascii", errors="replace")
        is_old = time.time() - note.stat().st_mtime > _MOST_S
        if is_old or has_recorded(lock, output, md5=md5):
            # Half removed it would be of a training that has not ended.
            note.parent.replace(note.parent.with_suffix(_FORGOTTEN))
    for folder in states.glob(f"*{_FORGOTTEN}"):
        shutil.rmtree(folder, ignore_errors=True)


def goes_on(state: Path) -> bool:
    """Whether a training had ended; if so, it has not any more."""
    had_ended = (state / _NAME).is_file()
    (state / _NAME).unlink(missing_ok=True)
    return had_ended
