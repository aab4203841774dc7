"""dvc.yaml's deps beside what the stages import: the code that makes an output, no other."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from deepstab.training.fingerprint import PACKAGE_PARTS
from tests.conftest import ROOT

# What says and checks but does not make, or only says where: dvc.yaml's own comment on it.
EXCEPTED = ("config", "errors", "progress", "tracking", "cli", "workers")

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("deepstab", exclude_type_checking_imports=True, cache_dir=None)


def imports_of(script: Path, graph: grimp.ImportGraph) -> set[str]:
    """The modules of the package that a script names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & graph.modules
            found |= inside or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & graph.modules


def makers(script: Path, graph: grimp.ImportGraph) -> set[Path]:
    """The files of all modules a script reaches, but those excepted and what only they reach."""
    reached: set[str] = set()
    waiting = imports_of(script, graph)
    while waiting:
        module = waiting.pop()
        wing = module.removeprefix("deepstab.").partition(".")[0]
        if module in reached or wing in EXCEPTED:
            continue
        reached.add(module)
        waiting |= graph.find_modules_directly_imported_by(module)
    return {file_of(module) for module in reached}


def file_of(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def code_deps(stage: str) -> set[Path]:
    deps = (dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/")))
    return {ROOT / dep for dep in deps if not dep.endswith((".html", ".json"))}


def script_of(stage: str) -> Path:
    return ROOT / STAGES[stage]["cmd"].removeprefix("python ")


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_what_the_stage_imports(stage: str, graph: grimp.ImportGraph) -> None:
    deps = code_deps(stage)
    made_by = makers(script_of(stage), graph) | {script_of(stage)}
    missing = {path for path in made_by if not deps & {path, *path.parents}}
    idle = {dep for dep in deps if not any(dep in (path, *path.parents) for path in made_by)}
    shown = [
        sorted(path.relative_to(ROOT).as_posix() for path in paths) for paths in (missing, idle)
    ]
    assert shown == [[], []], f"{stage}: deps that are missing, and deps it does not import"


def test_folders_run_no_code_of_their_own(graph: grimp.ImportGraph) -> None:
    """Importing a module runs the __init__ of its folders, which no dep of a single file names."""
    for path in (ROOT / "src" / "deepstab").rglob("__init__.py"):
        docstring, *rest = ast.parse(path.read_text()).body
        assert isinstance(docstring, ast.Expr), path
        if path.parent.name != "deepstab":
            assert not rest, path
        # The package's own says what it offers, and imports that when it is asked for.
        assert all(isinstance(line, ast.FunctionDef | ast.Assign) for line in rest[2:]), path
        assert [ast.unparse(line).partition("\n")[0] for line in rest[:2]] in (
            [],
            ["from typing import TYPE_CHECKING, Any", "if TYPE_CHECKING:"],
        )


def test_where_there_is_no_pipeline_the_same_parts_decide_a_training() -> None:
    package = ROOT / "src" / "deepstab"
    parts = {
        dep.relative_to(package).parts[0]
        for dep in code_deps("train")
        if dep.is_relative_to(package)
    }
    assert set(PACKAGE_PARTS) == parts
