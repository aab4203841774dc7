"""What is done with files that may be damaged: the package's own code, as a user meets it.

Each takes the folder of the files and returns what came of it, as JSON holds it. `frames` counts
what must never change in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FINGERPRINT, RUN_ID, URI = "f" * 16, "a" * 32, "http://127.0.0.1:9"
Answer = dict[str, Any]


def _only_file(folder: Path) -> Path:
    """The one file of a folder; where there is none any more, a name that is not there."""
    return next(folder.glob("in.*"), folder / "in.mp4")


def video(folder: Path) -> Answer:
    """Stabilize a video, and read both ends."""
    from deepstab.cli.videos import app
    from deepstab.video.frames import count_frames
    from deepstab.video.reader import VideoReader

    source = _only_file(folder)
    out = folder / "out.mkv"
    app(["stabilize", str(source), str(out), "--preset", "ultrafast"], standalone_mode=False)
    times, pictures = [], hashlib.sha256()
    with VideoReader(source) as reader:
        for frame in reader.decode():
            times.append(str(frame.pts * reader.time_base))
            pictures.update(reader.to_rgb(frame).tobytes())
    assert count_frames(out) == len(times), "input and output differ in length"
    out.unlink()
    return {"frames": len(times), "times": times, "pictures": pictures.hexdigest()}


def manifest(folder: Path) -> Answer:
    from deepstab.data.manifest import MANIFEST_NAME, Manifest

    found = Manifest.load(folder / MANIFEST_NAME)
    return {"frames": 0, "digest": found.digest()}


def shards(folder: Path) -> Answer:
    """Read every frame as a training does."""
    from deepstab.data.shard_reader import ShardReader
    from deepstab.data.shards import ShardIndex, verify_shards

    index = ShardIndex.load(folder / "shards")
    verify_shards(index)
    reader, content = ShardReader(index), hashlib.sha256()
    for pair in index.pairs:
        for column in reader.read(pair, 0, pair.num_frames).values():
            content.update(column.tobytes())
    return {"frames": 0, "digest": index.digest(), "content": content.hexdigest()}


def flow_cache(folder: Path) -> Answer:
    """Run the flow stage on what is cached."""
    import yaml

    from deepstab.config import parse_params
    from deepstab.data.flow_cache import fill_cache
    from deepstab.data.manifest import MANIFEST_NAME, Manifest
    from deepstab.data.shards import ShardIndex
    from tests.conftest import ROOT, TINY, with_values

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    params = parse_params(with_values(tree, TINY), origin="tiny")
    fill_cache(
        Manifest.load(folder / "raw" / MANIFEST_NAME),
        raw=folder / "raw",
        destination=folder / "shards",
        scratch=folder / "scratch",
        params=params.flow.model_copy(update={"shard_mib": 1}),
    )
    return {"frames": 0, "digest": ShardIndex.load(folder / "shards").digest()}


def state(folder: Path) -> Answer:
    from deepstab.training.state import StateFile

    kept = StateFile(folder, FINGERPRINT)
    found = kept.load()
    if found is None:
        return {"frames": 0, "state": None}
    networks, so_far = found
    weight = networks["generator"]["weight"].numpy().tobytes()
    said = json.dumps([so_far.history, so_far.duration_s])
    return {
        "frames": 0,
        "state": hashlib.sha256(weight + said.encode()).hexdigest(),
    }


def checkpoint(folder: Path) -> Answer:
    from deepstab.models.checkpoints import load_weights

    path = _only_file(folder)
    found = load_weights(str(path))
    found.build_generator()
    return {"frames": 0, "weights": found.weights_sha256(), "about": found.about()["sha256"]}


def database(folder: Path) -> Answer:
    """Read a run, then open another, as the next training does."""
    from deepstab.experiments.records import Records
    from deepstab.tracking.store import start_run

    record = Records(folder).find(RUN_ID)
    with start_run(experiment="fuzz", root=folder, outbox=folder / "outbox") as tracker:
        tracker.log_metrics({"loss": 0.5}, step=0)
    return {"frames": 0, "params": record.params, "metrics": record.metrics}


class _Inbox:
    """A store that keeps what it is sent."""

    uri = shown_uri = URI

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def probe(self) -> None:
        pass

    def send_records(self, run_id: str, points: list[Any], tags: list[Any]) -> None:
        self.kept += [[run_id, *record] for record in (*points, *tags)]

    def send_status(self, run_id: str, status: str, end_ms: int) -> None:
        if run_id == "earlier":
            self.kept.append([run_id, status, end_ms])

    def send_file(self, run_id: str, path: Path, folder: str) -> None:
        self.kept.append([run_id, f"{folder}/{path.name}", path.read_bytes().hex()])

    def send_model(self, run_id: str, folder: Path) -> None:
        self.kept.append([run_id, folder.name, (folder / "MLmodel").read_bytes().hex()])


def outbox(folder: Path) -> Answer:
    """Send what an earlier process left."""
    from deepstab.tracking.run import Run

    inbox: Any = _Inbox()
    run = Run(inbox, "now", outbox=folder, monitors=[])
    run.finish("FINISHED")
    return {"frames": len(inbox.kept), "kept": inbox.kept}


CALLS: dict[str, Callable[[Path], Answer]] = {
    call.__name__: call
    for call in (video, manifest, shards, flow_cache, state, checkpoint, database, outbox)
}
