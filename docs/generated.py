"""The pages of the site that the code and the files of the project root are the source of."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deepstab.cli.videos import app
from deepstab.config import Params

ROOT = Path(__file__).resolve().parents[1]
COPIED = {
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "reference/model-card.md": "src/deepstab/models/shipped/MODEL_CARD.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; called by MkDocs."""
    pages = {target: _without_links(ROOT / source) for target, source in COPIED.items()}
    pages["reference/command-line.md"] = command_line()
    pages["reference/parameters.md"] = parameters()
    pages["tour.md"] = notebook(ROOT / "docs/tour.ipynb")
    for target, text in pages.items():
        files.append(File.generated(config, target, content=text))
    return files


def command_line() -> str:
    """The help of every command."""
    group: Any = typer.main.get_command(app)
    parts = ["# Command line\n\nExit codes: 0 done, 1 an error in one line, 2 wrong usage.\n"]
    for name, command in sorted(group.commands.items()):
        context = command.context_class(command, info_name=f"deepstab {name}", terminal_width=78)
        parts.append(f"## deepstab {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


def parameters() -> str:
    """Every parameter of params.yaml, from its schema."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    head = "| parameter | type | default | meaning |\n|---|---|---|---|\n"
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _rows(Params, tree, ""))
    intro = "What `params.yaml` holds; a value that does not fit is an error that names it.\n"
    return f"# Parameters\n\n{intro}\n{head}{rows}\n"


def notebook(path: Path) -> str:
    """A notebook as it was executed."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(f"![plot](data:image/png;base64,{''.join(data['image/png']).strip()})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).strip()}\n```")
    return "\n\n".join(parts)


def _rows(model: type[BaseModel], tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _rows(inner, tree[name], f"{prefix}{name}.")
        else:
            meaning = (field.description or "").replace("|", "\\|").replace("\n", " ")
            default = f"`{tree[name]}`"
            yield f"`{prefix}{name}`", _type(field), default, meaning


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(item, attribute)}"
        for item in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(item, attribute)
    ]
    return ", ".join([_named(field.annotation), *bounds])


def _named(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if origin is Annotated:
        return _named(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_named(part) for part in get_args(kind))
    if origin is not None:
        inner = ", ".join(_named(part) for part in get_args(kind) if part is not ...)
        return f"{origin.__name__} of {inner}"
    return getattr(kind, "__name__", str(kind))


def _without_links(path: Path) -> str:
    """A file's text; where its links lead is not on the site."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", path.read_text())
