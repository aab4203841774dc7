"""How long the stages before training took, found again by what they made."""

from __future__ import annotations

import json
from pathlib import Path

from deepstab.tracking import names

_FOLDER = "durations"


def remember_duration(stage: str, seconds: float, *, digest: str, scratch: Path) -> None:
    """Keep the duration of a stage that ran, under the digest of its output.

    Download and flow run before there is an MLflow run to tell, or not at all where DVC has their
    outputs; training asks for what its own data took.
    """
    path = _path(stage, digest, scratch)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"duration_s": round(seconds, 3)}) + "\n", encoding="utf-8")


def recall_durations(digests: dict[str, str], *, scratch: Path) -> dict[str, float]:
    """Metric name to seconds, of those stages whose output was made on this machine.

    Args:
        digests: stage name to the digest of its output.
        scratch: as for `remember_duration`.
    """
    found = {}
    for stage, digest in digests.items():
        path = _path(stage, digest, scratch)
        if path.is_file():
            found[names.DURATION_PREFIX + stage] = json.loads(path.read_text("utf-8"))["duration_s"]
    return found


def _path(stage: str, digest: str, scratch: Path) -> Path:
    return scratch / _FOLDER / f"{stage}-{digest[:16]}.json"
