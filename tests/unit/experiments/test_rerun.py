"""What a run must have kept to be rebuilt; tests/pipeline/test_lineage.py does rebuild one."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepstab.errors import RerunError
from deepstab.experiments.records import Records
from deepstab.experiments.rerun import rerun
from deepstab.tracking import names
from deepstab.tracking.store import start_run

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.mark.parametrize(
    ("kept", "missing"), [((), names.PARAMS_FILE), ((names.PARAMS_FILE,), names.METRICS_FILE)]
)
def test_what_is_not_in_the_store_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...], missing: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with start_run(experiment="e", root=tmp_path, outbox=tmp_path / "outbox") as run:
        run.set_tags({names.COMMIT_TAG: "c0ffee", names.DIRTY_TAG: "false"})
        for artifact in kept:
            run.log_text("seed: 7\n", artifact)
    records = Records(tmp_path)
    with pytest.raises(RerunError, match=rf"^run {run.run_id} .*{missing}"):
        rerun(records, records.find(run.run_id), root=tmp_path)
