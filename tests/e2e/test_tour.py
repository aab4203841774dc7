"""docs/tour.ipynb runs from top to bottom, and what it shows is what it computes."""

from __future__ import annotations

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

TOUR = ROOT / "docs/tour.ipynb"


# The kernel's own libraries, not ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_tour_comes_to_its_end() -> None:
    shown = nbformat.read(TOUR, as_version=4)
    run = nbformat.read(TOUR, as_version=4)
    NotebookClient(run, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    if "WRITE" in os.environ:
        for cell in run.cells:
            cell.metadata = {}
        nbformat.write(run, TOUR)
        return
    (before, after), (shown_before, _) = (jitter(notebook) for notebook in (run, shown))
    assert before == pytest.approx(shown_before, rel=0.02)
    assert after < 0.25 * before


def jitter(notebook: nbformat.NotebookNode) -> tuple[float, float]:
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    found = re.search(r"jitter_px +([\d.]+) -> ([\d.]+)", text)
    assert found is not None
    return float(found[1]), float(found[2])
