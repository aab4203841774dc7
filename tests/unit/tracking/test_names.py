"""A run's names stand once: nothing that writes or reads runs spells one out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from deepstab.tracking import names
from tests.conftest import ROOT

WINGS = ("tracking", "experiments", "training", "evaluation")
FOLDERS = [ROOT / "stages", *(ROOT / "src" / "deepstab" / wing for wing in WINGS)]
# Where a parameter is meant that is called as a tag is.
PARAMETERS = {"page.py": {"data.source"}}
# The plain words among them may mean something else elsewhere.
TELLING = {
    value
    for name, value in vars(names).items()
    if name.isupper() and any(mark in value for mark in "/._")
}


def spelled_out(source: str) -> set[str]:
    """The names that a source spells out, as a text or as the first part of one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {name for name in TELLING if _is_or_begins(node.value, name)}
    return found


def _is_or_begins(text: str, name: str) -> bool:
    return text == name or (name.endswith(("/", "_")) and text.startswith(name))


@pytest.mark.parametrize(
    "path",
    [path for folder in FOLDERS for path in sorted(folder.glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_names_come_from_names(path: Path) -> None:
    if path != Path(names.__file__):
        assert spelled_out(path.read_text()) == PARAMETERS.get(path.name, set())


def test_names_that_are_spelled_out_are_found() -> None:
    source = "tags['data.source']; f'duration_s/{stage}'; 'duration_s'"
    assert spelled_out(source) == {"data.source", "duration_s/"}
