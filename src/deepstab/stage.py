"""What every stage script needs at its edge: the log, and errors as one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from deepstab.errors import DeepStabError


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage; a `DeepStabError` becomes one line on stderr and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("deepstab").setLevel(logging.INFO)
    try:
        stage()
    except DeepStabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        sys.exit(130)
