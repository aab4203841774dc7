"""dvc.lock in git is of the code in git. Part of `make check`: an experiment may well differ."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif("LOCK" not in os.environ, reason="LOCK is not set: make check")


def test_the_lock_is_of_this_code() -> None:
    # Hashes only. Data that is not there, as in a fresh clone, is "deleted", and no matter.
    done = subprocess.run(
        ["dvc", "status", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    stale = [
        f"{stage}: {path}"
        for stage, changes in json.loads(done.stdout).items()
        for change in changes
        if isinstance(change, dict)
        for path, state in _flat(change.get("changed deps", {}))
        if state != "deleted"
    ]
    assert not stale, f"{', '.join(stale)}; run `dvc repro` and commit dvc.lock with the reports"


def _flat(changes: dict[str, str | dict[str, str]]) -> list[tuple[str, str]]:
    flat = []
    for path, state in changes.items():
        flat += [(path, state)] if isinstance(state, str) else _flat(state)
    return flat
