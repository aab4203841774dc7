"""A process that does what it is told with one folder after another, and may die of it.

A line of JSON on standard input names a call and a folder; the answer is a line on standard output.
What the call prints, libraries in C included, is part of the answer.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from deepstab.cli.console import one_line_errors
from tests.campaigns.fuzz.calls import CALLS


def answer(call: str, folder: Path) -> dict[str, Any]:
    """Call, and tell exit code, what was printed, the outcome, and threads that were left."""
    outcome, code = None, 0
    with tempfile.TemporaryFile() as printed:
        kept = os.dup(1), os.dup(2)
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        try:
            with one_line_errors():
                outcome = CALLS[call](folder)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)
        printed.seek(0)
        said = printed.read().decode(errors="replace")
    threads = [thread.name for thread in threading.enumerate() if "deepstab" in thread.name]
    return {"code": code, "said": said, "outcome": outcome, "threads": threads}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.getLogger("deepstab").setLevel(logging.INFO)
    for line in sys.stdin:
        told = json.loads(line)
        print(json.dumps(answer(told["call"], Path(told["folder"]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
