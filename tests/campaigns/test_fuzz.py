"""A few tries of the campaign, and that it sees the faults it looks for."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.fuzz import __main__ as fuzz
from tests.campaigns.fuzz.damage import damage_file
from tests.campaigns.fuzz.sound import SUBJECTS
from tests.conftest import ROOT

BY_NAME = {subject.name: subject for subject in SUBJECTS}


def test_no_damage_is_believed_in_silence() -> None:
    # Not in this process, where MLflow's warnings would be errors, and stay so for other tests.
    command = [sys.executable, "-m", "tests.campaigns.fuzz", "--tries", "12", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 tries, 0 with faults" in done.stdout


def test_a_seed_damages_the_same_bytes_again(tmp_path: Path) -> None:
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        for name in ("mkv", "checkpoint", "outbox"):
            (folder / name).mkdir(parents=True)
            BY_NAME[name].make(folder / name)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            damage_file(path, random.Random("1"), BY_NAME["mkv"].aims)
        made.append(
            {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
    assert made[0] == made[1]


ANSWER = {"code": 0, "said": "", "outcome": {"frames": 24}, "threads": [], "left": []}
LESS = {"outcome": {"frames": 23}}
ERROR = {"code": 1, "said": "error: a: b; c\n", "outcome": None}


@pytest.mark.parametrize(
    ("subject", "answer", "outcome"),
    [
        ("mkv", {}, "the same"),
        ("mkv", ERROR, "refused"),
        ("mkv", LESS, "fault"),
        ("ts", LESS, "believed"),
        ("mkv", {**LESS, "said": "warning: a\n"}, "warned"),
        ("mkv", {**ERROR, "said": "Traceback (most recent call last):\n"}, "fault"),
        ("mkv", {**ERROR, "said": "error: a\nb\n"}, "fault"),
        ("mkv", {**ERROR, "said": ""}, "fault"),
        ("mkv", {**ERROR, "left": [".deepstab-1.part"]}, "fault"),
        ("mkv", {"threads": ["deepstab-decode"]}, "fault"),
        ("mkv", {"died": -11}, "fault"),
        ("mkv", {"hangs": True}, "fault"),
        ("shards", LESS, "fault"),
    ],
)
def test_faults_are_seen(subject: str, answer: dict[str, Any], outcome: str) -> None:
    found, faults = fuzz.judge(BY_NAME[subject], "a: cut", ANSWER | answer, ANSWER)
    assert (found, bool(faults)) == (outcome, outcome == "fault")


def test_a_process_that_dies_or_hangs_is_seen_and_replaced(
    tmp_path: Path,
) -> None:
    script = (
        "import json, os, sys, time\n"
        "for line in sys.stdin:\n"
        "    time.sleep(60 * (json.loads(line)['call'] == 'hang'))\n"
        "    os.kill(os.getpid(), 11)\n"
    )
    worker = fuzz.Worker((sys.executable, "-c", script), most_s=2)
    try:
        assert worker.ask("die", tmp_path) == {"died": -11}
        assert worker.ask("hang", tmp_path) == {"hangs": True}
        assert worker.ask("die", tmp_path) == {"died": -11}
    finally:
        worker.close()
