"""Whatever stands in params.yaml is taken, and the same when written again, or is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deepstab.config import Params, flatten, load_params, parse_params
from deepstab.errors import ParameterError
from tests.conftest import ROOT

DEFAULT: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
SECTIONS = ["", *(name for name, value in DEFAULT.items() if isinstance(value, dict))]
KEYS = sorted(flatten(parse_params(DEFAULT, origin="default")))
# Surrogates too, which YAML can write as "\ud800".
TEXTS = st.text(st.characters(codec=None), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**4290, 10**4310),
    st.floats(),
    TEXTS,
    st.binary(max_size=8),
    st.dates(),
    st.datetimes(),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(TEXTS, st.integers(), st.none()), inner, max_size=4),
        st.sets(st.integers(), max_size=3),
    ),
    max_leaves=8,
)
# Pieces of YAML that mean something, in any order.
YAML = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *("seed: ", "data:", "train:", "1e-4", ".nan", "0x", "0b", "1:2:3", "-.inf"),
                *("\n", "\n  ", "- ", "{", "}", "[", "]", ",", "&a ", "*a", "<<: ", "? ", ": "),
                *("!!int ", "!!float ", "!!bool ", "!!set ", "!!omap ", "!!binary ", "!!pairs "),
                *(
                    "!!timestamp ",
                    "!!python/object:os.system ",
                    "%YAML 1.1",
                    "---",
                    "...",
                    "2024-1-1",
                ),
                *(
                    "'",
                    '"',
                    "\\ud800",
                    "#",
                    "=",
                    "~",
                    "@",
                    "`",
                    "\t",
                    "\x07",
                    "\ufeff",
                    "\x85",
                    "|",
                ),
            ]
        ),
        st.text(max_size=3),
    ),
    max_size=12,
).map("".join)


def default_with(key: str, value: object) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(yaml.safe_dump(DEFAULT))
    *sections, name = key.split(".")
    section = tree
    for part in sections:
        section = section[part]
    section[name] = value
    return tree


def accepted_or_one_line(tree: object) -> Params | None:
    try:
        params = parse_params(tree, origin="params.yaml")
    except ParameterError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 5000
        return None
    assert parse_params(params.model_dump(mode="json"), origin="again") == params
    assert parse_params(yaml.safe_load(yaml.safe_dump(params.model_dump(mode="json"))), origin="y")
    return params


@settings(max_examples=100)
@given(tree=TREES)
def test_any_tree(tree: object) -> None:
    assert accepted_or_one_line(tree) is None


@settings(max_examples=200)
@given(key=st.sampled_from(KEYS), value=TREES)
@example(key="data.split.test", value=["\ud800"])
def test_any_value_of_any_parameter(key: str, value: object) -> None:
    accepted_or_one_line(default_with(key, value))


@pytest.mark.parametrize("key", KEYS)
def test_a_number_too_large_to_be_written(key: str) -> None:
    accepted_or_one_line(default_with(key, 2**16384))


@settings(max_examples=60)
@given(where=st.sampled_from(SECTIONS), name=TEXTS, value=TREES)
@example(where="data", name="a\nb\x1b[2J", value=1)
def test_a_parameter_nobody_knows(where: str, name: str, value: object) -> None:
    tree = yaml.safe_load(yaml.safe_dump(DEFAULT))
    section = tree[where] if where else tree
    known = name in section
    section[name] = value
    assert accepted_or_one_line(tree) is None or known


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=YAML)
@example(text="seed: !!int ''")
@example(text="seed: !!float ''")
@example(text="seed: !!bool perhaps")
@example(text="seed: !!timestamp soon")
@example(text="seed: 0x" + "f" * 5000)
@example(text="a: &a {<<: *a}")
@example(text="a: &a [*a]\nseed: *a")
@example(text="a: &a {b: *a}\ndata: *a")
@example(text="? {a: 1}\n: 2")
@example(text='"\\ud800": "\\ud800"')
@example(text='"a\\nb": 1')
def test_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ParameterError) as caught:
        load_params(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 5000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=30))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParameterError):
        load_params(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_delivered_file_damaged_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    text = (ROOT / "params.yaml").read_text()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 50)))
    path = tmp_path / "params.yaml"
    path.write_text(text[:start] + data.draw(YAML) + text[stop:], errors="replace")
    try:
        params = load_params(path)
    except ParameterError as error:
        message = str(error)
        assert message.isprintable()
        return
    assert parse_params(params.model_dump(mode="json"), origin="again") == params
