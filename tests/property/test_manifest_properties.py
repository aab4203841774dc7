"""A manifest or an index changed anywhere is taken only when it holds together, else one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deepstab.config import load_params
from deepstab.data.manifest import Manifest
from deepstab.data.shards import INDEX_NAME, ShardIndex
from deepstab.errors import DeepStabError
from tests.conftest import ROOT

SHA = "0123456789abcdef" * 4


def video(path: str, num_frames: int) -> dict[str, Any]:
    return {
        "path": path,
        "sha256": SHA,
        "num_frames": num_frames,
        "frame_rate": 29.97,
        "width": 64,
        "height": 48,
    }


MANIFEST: dict[str, Any] = {
    "requested": "auto",
    "source": "folder",
    "pairs": [
        {
            "name": name,
            "scene": "scene",
            "split": split,
            "stable": video(f"stable/{name}.mp4", 21),
            "unstable": video(f"unstable/{name}.mp4", 20),
            "num_frames": 20,
            "truth": {"path": f"truth/{name}.npz", "sha256": SHA},
        }
        for name, split in (("1", "train"), ("é", "test"))
    ],
    "problems": [{"name": "3", "problem": "only in stable/", "action": "left out"}],
    "vgg19_sha256": None,
    "counts": {"train": 1},
}
FLOW = load_params(ROOT / "params.yaml").flow.model_dump(mode="json")
INDEX: dict[str, Any] = {
    "height": FLOW["height"],
    "width": FLOW["width"],
    "manifest_digest": SHA,
    "flow": FLOW,
    "layout": 3,
    "pairs": [
        {
            "name": name,
            "split": "train",
            "width": 64,
            "height": 48,
            "num_frames": 30,
            "shards": [
                {"file": f"{name}-{n}.arrow", "sha256": SHA, "first_frame": n, "num_frames": count}
                for n, count in ((0, 20), (20, 10))
            ],
        }
        for name in ("1", "é")
    ],
}
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, 1, 19, 20, 21, 2**31, 10**400, -1]),
        st.floats(),
        st.text(st.characters(codec=None), max_size=8),
        st.sampled_from(["", "1", "../x", "/etc/passwd", "a\0b", "a\nb", "\ud800", "train", SHA]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to every value of a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in inner:
        found.append((*above, key))
        if isinstance(value, dict | list):
            found += places(value, (*above, key))
    return found


@st.composite
def changed(draw: st.DrawFn, valid: dict[str, Any]) -> str:
    """The JSON text of a tree after one to three changes: a value replaced, removed, or copied."""
    tree = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        if not (all_places := places(tree)):
            break
        *above, key = draw(st.sampled_from(all_places))
        inner = tree
        for part in above:
            inner = inner[part]
        match draw(st.sampled_from(["replace", "replace", "remove", "copy", "add"])):
            case "replace":
                inner[key] = draw(JSON)
            case "remove":
                del inner[key]
            case "copy" if isinstance(inner, list):
                inner.append(inner[key])
            case "copy":
                other = draw(st.sampled_from(sorted(inner)))
                inner[other] = inner[key]
            case "add" if isinstance(inner, dict):
                inner[draw(st.text(max_size=3))] = draw(JSON)
    return json.dumps(tree)


def is_name(name: str) -> bool:
    return name != "" and not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name)


def is_below(path: str) -> bool:
    return (
        is_name(path) and Path("/a/b", path).is_relative_to("/a/b") and ".." not in path.split("/")
    )


def check_manifest(found: Manifest) -> None:
    assert len({pair.name for pair in found.pairs}) == len(found.pairs)
    for pair in found.pairs:
        files = [pair.stable, pair.unstable]
        assert is_name(pair.name)
        assert 0 < pair.num_frames <= min(file.num_frames for file in files) < 2**31
        for file in [*files, *([pair.truth] if pair.truth else [])]:
            assert is_below(file.path)
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)


def check_index(found: ShardIndex) -> None:
    assert len({pair.name for pair in found.pairs}) == len(found.pairs)
    for pair in found.pairs:
        assert is_name(pair.name)
        assert sum(shard.num_frames for shard in pair.shards) == pair.num_frames
        assert all(is_below(shard.file) for shard in pair.shards)


def taken_or_one_line(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except DeepStabError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 1000
    return None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=changed(MANIFEST))
@example(text=json.dumps(MANIFEST))
def test_a_changed_manifest(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    found = taken_or_one_line(lambda: Manifest.load(path))
    assert found is not None or text != json.dumps(MANIFEST)
    if found is not None:
        check_manifest(found)
        found.save(path)
        assert Manifest.load(path) == found
        assert Manifest.load(path).digest() == found.digest()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=changed(INDEX))
@example(text=json.dumps(INDEX))
def test_a_changed_index(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX_NAME).write_text(text)
    found = taken_or_one_line(lambda: ShardIndex.load(tmp_path))
    assert found is not None or text != json.dumps(INDEX)
    if found is not None:
        check_index(found)
        found.save()
        assert ShardIndex.load(tmp_path) == found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_damaged_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    for valid, check in ((MANIFEST, check_manifest), (INDEX, check_index)):
        content = json.dumps(valid).encode()
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 9)))
        path = tmp_path / INDEX_NAME
        path.write_bytes(content[:start] + data.draw(st.binary(max_size=3)) + content[stop:])
        load = Manifest.load if valid is MANIFEST else lambda path: ShardIndex.load(path.parent)
        found = taken_or_one_line(lambda load=load, path=path: load(path))
        if found is not None:
            check(found)
