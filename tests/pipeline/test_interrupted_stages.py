"""Ctrl-C while a stage still imports, which takes seconds."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("stage", ["download", "flow", "train", "evaluate", "report"])
def test_an_interrupt_while_a_stage_imports_is_one_line(stage: str) -> None:
    command = [sys.executable, "-X", "importtime", f"stages/{stage}.py"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.endswith(" pydantic\n"):
                break
        running.send_signal(signal.SIGINT)
        said = [line for line in running.stderr if not line.startswith("import time:")]
    assert said == ["interrupted; run again to go on\n"]
    assert running.returncode == 130
