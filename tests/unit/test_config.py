from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deepstab.config import Params, Section, flatten, load_params, parse_params
from deepstab.errors import ParameterError
from tests.conftest import ROOT, with_values


def test_both_files_hold_to_the_schema_and_the_same_keys() -> None:
    default = flatten(load_params(ROOT / "params.yaml"))
    published = flatten(load_params(ROOT / "params.deepstab.yaml"))
    assert default.keys() == published.keys()
    expected = {
        "train.epochs": 200,
        "train.batch_size": 2,
        "model.clip_length": 32,
        "flow.height": 224,
        "flow.width": 224,
        "train.lr_g": 1e-4,
        "data.source": "kaggle",
        "data.kaggle_dataset": "bishakhamondal/deepstab",
        "loss.vgg_weights": "torchvision",
    }
    assert {key: published[key] for key in expected} == expected


def test_published_split_is_the_one_of_the_literature() -> None:
    split = load_params(ROOT / "params.deepstab.yaml").data.split
    assert split.test == ("4", "8", "27", "29", "34", "39", "52", "57")
    assert split.validation == ("6", "12", "16", "23", "32", "40", "49", "61")


def test_every_field_is_described() -> None:
    def leaves(model: type[BaseModel]) -> list[str]:
        bare = []
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                bare += leaves(kind)
            elif not field.description:
                bare.append(f"{model.__name__}.{name}")
        return bare

    assert leaves(Params) == []


@pytest.mark.parametrize("text", ["1e-4", "1E-04", "0.0001", "1.0e-4"])
def test_exponents_are_numbers_whichever_yaml_reader_read_them(
    default_tree: dict[str, Any], text: str
) -> None:
    # PyYAML gives a string for 1e-4, DVC's ruamel a float.
    for value in (yaml.safe_load(text), float(text)):
        params = parse_params(with_values(default_tree, {"train.lr_g": value}), origin="p")
        assert params.train.lr_g == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.clip_length", 0, "greater than or equal to 4"),
        ("flow.width", 129, "multiple of 16"),
        ("flow.height", 48, "greater than or equal to 64"),
        ("train.lr_g", "fast", "valid number"),
        ("train.epochs", 1.5, "valid integer"),
        ("train.epochs", True, "valid integer"),
        ("train.batch_size", "2", "valid integer"),
        ("model.head", "transformer", "'motion' or 'fc'"),
        ("data.source", "youtube", "'flights'"),
        ("loss.lambda_pixel", -1, "greater than or equal to 0"),
        ("loss.lambda_vgg", 1.0, "set lambda_vgg to 0"),
        ("evaluate.window_stride", 64, "must not exceed"),
        ("train.lr_d", float("nan"), "finite number"),
        ("data.flights.shake_min", 0.1, "must not exceed shake_max"),
        ("data.videos.shake_min", 0.1, "must not exceed shake_max"),
        ("data.videos.variants", 0, "greater than or equal to 1"),
        ("data.videos.faults.blur", 1.5, "less than or equal to 1"),
        ("data.flights.faults.occluder", -0.1, "greater than or equal to 0"),
        ("data.flights.parallax", "often", "valid number"),
        ("data.flights.width", 10**9, "less than or equal to 8192"),
        ("data.flights.num_frames", 10**9, "less than or equal to"),
        ("data.videos.width", 10**9, "less than or equal to 8192"),
        ("data.videos.variants", 10**9, "less than or equal to"),
        ("train.epochs", 10**9, "less than or equal to"),
        ("data.split.test", 0.0, "greater than 0"),
        ("data.split.validation", 0, "greater than 0"),
    ],
)
def test_a_bad_value_is_one_line_with_key_value_and_what_is_allowed(
    default_tree: dict[str, Any], key: str, value: object, allowed: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_params(with_values(default_tree, {key: value}), origin="params.yaml")
    message = str(caught.value)
    assert "\n" not in message
    section, _, name = key.rpartition(".")
    assert section in message
    assert name in message
    assert allowed in message


def test_unknown_and_missing_keys_are_named(default_tree: dict[str, Any]) -> None:
    tree = with_values(default_tree, {})
    tree["train"]["learning_rate"] = 1e-4
    del tree["train"]["lr_g"]
    with pytest.raises(ParameterError, match=r"train\.lr_g is missing") as caught:
        parse_params(tree, origin="params.yaml")
    assert "train.learning_rate is no known parameter (value 0.0001)" in str(caught.value)


def test_split_lists_must_not_overlap(default_tree: dict[str, Any]) -> None:
    tree = with_values(default_tree, {"data.split": {"test": [4, 8], "validation": ["8"]}})
    with pytest.raises(ParameterError, match=r"\['8'\] are in both"):
        parse_params(tree, origin="p")


def test_missing_file_and_broken_yaml_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such parameter file"):
        load_params(tmp_path / "params.yaml")
    broken = tmp_path / "params.yaml"
    broken.write_text("a: [1\nb: 2")
    with pytest.raises(ParameterError, match="not valid YAML") as caught:
        load_params(broken)
    assert "\n" not in str(caught.value)
    broken.write_text("- 1\n")
    with pytest.raises(ParameterError, match="mapping of sections"):
        load_params(broken)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"seed: \xff", "not UTF-8"),
        (b"a: " + b"[" * 3000, "nested too deep"),
        (b"a: 2024-99-99", "not valid YAML"),
        (b"train: {lr_g: 1, lr_d: 2, lr_g: 3}", "the key lr_g stands twice"),
        (
            b"a: &a [x]\nb: &b [*a,*a,*a]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in b"cdefghij"
            ),
            "no known parameter",
        ),
        (b"learning-rate: 1", "learning-rate is no known parameter"),
        (b"seed: 0x" + b"f" * 5000, r"seed: 0xf+\.\.\. is not allowed"),
        (b"seed: !!int ''", "not valid YAML"),
        (b"seed: !!bool perhaps", "not valid YAML"),
        (b"seed: !!timestamp soon", "not valid YAML"),
        (b'"a\\nb\\e[2J": 1', r"a\\nb\\x1b\[2J is no known parameter"),
        (
            b"a: &a {%s}\n" % b", ".join(b"k%d: 1" % n for n in range(9))
            + b"".join(
                b"%c: &%c {<<: [%s]}\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9))
                for n in b"bcdefghijk"
            ),
            "more than 1000 keys",
        ),
        (b"".join(b"k%d: 1\n" % n for n in range(1000)), "and 989 more"),
    ],
    ids=[
        *("latin", "deep", "date", "twice", "laughs", "dash", "huge", "no int", "no bool"),
        *("no time", "control", "merges", "many"),
    ],
)
def test_files_that_no_editor_meant_are_one_short_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParameterError, match=reason) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_folder_is_no_parameter_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be read"):
        load_params(tmp_path)


def test_parameters_cannot_be_changed(tiny_params: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny_params.train.epochs = 3  # type: ignore[misc]
