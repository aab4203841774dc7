"""From a file or a run back to the data: data -> shards -> run -> checkpoint -> metrics."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deepstab.errors import DeepStabError
from deepstab.models import shipping
from deepstab.models.origin import Origin
from deepstab.tracking import names
from deepstab.tracking.lockfile import outputs
from deepstab.video.frames import read_comment
from deepstab.video.writer import FORMATS

if TYPE_CHECKING:
    from deepstab.experiments.records import Record, Records

# One link of the chain: what is said of it, in the order to show it.
Facts = dict[str, Any]
Chain = dict[str, Facts]

_WEIGHTS_SUFFIXES = {".pth", ".safetensors"}


@dataclass(frozen=True)
class FileOrigin:
    """What a file says of itself: the run that made it, and further facts.

    `chain` is what weights say that were trained untracked, as far as they are at hand.
    """

    run_id: str
    facts: Facts
    chain: Chain = field(default_factory=dict)


def is_file(subject: str) -> bool:
    """Say whether a file is meant rather than a run: it is there, or its suffix is one of ours."""
    suffixes = _WEIGHTS_SUFFIXES | FORMATS.keys() | {".json"}
    return Path(subject).is_file() or Path(subject).suffix in suffixes


def read_file(path: Path) -> FileOrigin:
    """Read the run's id out of a checkpoint, a metrics.json or a stabilized video.

    Raises:
        DeepStabError: the file cannot be read, or says nothing of a run.
    """
    if path.resolve() == shipping.WEIGHTS.resolve():
        about, shipped = _read_shipped()
        sha256 = shipped.generator_sha256
        return FileOrigin("", _checkpoint_facts(about, sha256), _own_chain(about, sha256))
    if path.suffix in _WEIGHTS_SUFFIXES:
        return _read_weights(path)
    if path.suffix == ".json":
        return _read_metrics(path)
    origin = Origin.find(read_comment(path))
    if origin is None:
        raise DeepStabError(
            f"{path} says nothing of where it came from; name a checkpoint, a metrics.json or a "
            "video that deepstab stabilized"
        )
    facts: Facts = {"generator_sha256": origin.generator_sha256}
    about, shipped = _read_shipped()
    if origin != shipped:
        return FileOrigin(origin.run_id, facts)
    facts["weights"] = f"shipped with deepstab {version('deepstab')}"
    return FileOrigin(origin.run_id, facts, _own_chain(about, shipped.generator_sha256))


def trace(records: Records, record: Record) -> Chain:
    """All that is known of a run, from its data to its metrics."""
    training = record
    if record.trained_in != record.run_id:
        training = records.find(record.trained_in)
    lock = _read_lock(records, record) or _read_lock(records, training)
    made = outputs(lock)
    return {
        "data": _data_facts(training, made),
        "shards": _shard_facts(training, made),
        "run": _run_facts(record),
        "checkpoint": {
            "trained_in": training.run_id,
            "epoch": training.tags.get(names.EPOCH_TAG),
            "generator_sha256": training.tags.get(names.GENERATOR_TAG),
            "final_generator_sha256": training.tags.get(names.FINAL_GENERATOR_TAG),
            **_locked(made, names.BEST_FILE),
        },
        "metrics": {
            name.removeprefix(names.STABILIZED_PREFIX): value
            for name, value in sorted(record.metrics.items())
            if name.startswith(names.STABILIZED_PREFIX)
        },
    }


def contradiction(origin: FileOrigin, chain: Chain) -> str | None:
    """Say how a file differs from what its run made, None if it does not as far as both say."""
    run = f"run {origin.run_id}"
    sha256 = origin.facts.get("generator_sha256")
    made = [sha for name, sha in chain["checkpoint"].items() if "generator_sha256" in name and sha]
    if sha256 is not None and made and sha256 not in made:
        return f"generator_sha256 is {sha256} in the file, but {run} made {' and '.join(made)}"
    for name, known in chain["metrics"].items():
        value = origin.facts.get(name)
        if value is not None and f"{known:.6g}" != f"{value:.6g}":
            return f"{name} is {value} in the file, but {known} in {run}"
    return None


def as_text(chain: Chain) -> str:
    """One block for each link, in the order in which one led to the next."""
    blocks = []
    for title, facts in chain.items():
        known = {name: value for name, value in facts.items() if value not in (None, "")}
        lines = [f"  {name:<22} {_shown(value)}" for name, value in known.items()]
        blocks.append("\n".join([title, *(lines or ["  (nothing recorded)"])]))
    return "\n".join(blocks)


def _read_weights(path: Path) -> FileOrigin:
    from deepstab.models.checkpoints import load_weights  # torch takes seconds to load

    checkpoint = load_weights(str(path))
    about, sha256 = checkpoint.about(), checkpoint.generator_sha256()
    chain = {} if checkpoint.run_id else _own_chain(about, sha256)
    return FileOrigin(checkpoint.run_id, _checkpoint_facts(about, sha256), chain)


def _read_shipped() -> tuple[dict[str, Any], Origin]:
    about, origin = shipping.read_shipped()
    about["commit"] = shipping.COMMIT.read_text(encoding="utf-8").strip()
    return about, origin


def _checkpoint_facts(about: Mapping[str, Any], generator_sha256: str) -> Facts:
    return {
        "commit": about.get("commit"),
        "epoch": str(about["epoch"]),
        "generator_sha256": generator_sha256,
        "manifest_sha256": about["manifest_digest"],
        **{f"validation {name}": value for name, value in about["validation"].items()},
    }


def _own_chain(about: Mapping[str, Any], generator_sha256: str) -> Chain:
    """What weights themselves say of a training that no run recorded."""
    data = about["params"].get("data", {})
    source = data.get("source")
    folder = data.get(source, {}).get("folder") if source == "videos" else None
    return {
        "data": {"source": source, "folder": folder, "manifest_sha256": about["manifest_digest"]},
        "checkpoint": _checkpoint_facts(about, generator_sha256),
        "parameters": about["params"],
    }


def _read_metrics(path: Path) -> FileOrigin:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        run_id = tree["run_id"]
        means = {k: v["stabilized"] for k, v in tree.items() if k not in ("run_id", "data")}
    except FileNotFoundError:
        raise DeepStabError(f"{path}: no such file; check the path") from None
    except (ValueError, KeyError, TypeError):
        raise DeepStabError(
            f"{path} is no metrics.json of an evaluation; name {names.METRICS_FILE}"
        ) from None
    return FileOrigin(run_id, means)


def _read_lock(records: Records, record: Record) -> dict[str, Any]:
    text = records.read_text(record.run_id, names.LOCK_FILE)
    return {} if text is None else yaml.safe_load(text)


def _data_facts(training: Record, made: dict[str, dict[str, Any]]) -> Facts:
    _, manifest = training.datasets.get(names.TRAINING_DATA, ("", None))
    return {
        "source": training.tags.get(names.DATA_SOURCE_TAG),
        "generated": training.tags.get(names.DATA_GENERATED_TAG),
        "manifest_sha256": manifest,
        **_locked(made, "data/raw"),
    }


def _shard_facts(training: Record, made: dict[str, dict[str, Any]]) -> Facts:
    flow = {name: v for name, v in training.params.items() if name.startswith("flow.")}
    return {**_locked(made, "data/shards"), "flow": {k[5:]: v for k, v in flow.items()}}


def _run_facts(record: Record) -> Facts:
    tags, prefix = record.tags, names.DURATION_PREFIX
    started = datetime.datetime.fromtimestamp(record.start_ms / 1000, datetime.UTC)
    return {
        "id": record.run_id,
        "name": record.name,
        "status": record.status,
        "started": started.isoformat(timespec="seconds"),
        "commit": tags.get(names.COMMIT_TAG),
        "branch": tags.get(names.BRANCH_TAG),
        "uncommitted_changes": tags.get(names.DIRTY_TAG),
        "experiment": tags.get(names.EXPERIMENT_TAG),
        "rerun_of": tags.get(names.RERUN_OF_TAG),
        "seed": record.params.get("seed"),
        "user": tags.get(names.USER_TAG),
        "processor": tags.get(names.PROCESSOR_TAG),
        "gpu": tags.get(names.GPU_TAG),
        "platform": tags.get(names.PLATFORM_TAG),
        "python": tags.get(names.PYTHON_TAG),
        "duration_s": {
            name.removeprefix(prefix): round(value, 1)
            for name, value in sorted(record.metrics.items())
            if name.startswith(prefix)
        },
    }


def _locked(made: dict[str, dict[str, Any]], path: str) -> Facts:
    found = made.get(path, {})
    names = {"path": "path", "md5": "dvc_md5", "size": "bytes", "nfiles": "files"}
    return {shown: found[name] for name, shown in names.items() if name in found}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
