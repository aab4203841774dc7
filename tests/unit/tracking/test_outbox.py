"""What waits to be sent, with a destination that fails as it is told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepstab.tracking.outbox import Outbox, Point, Status, Tag

URI = "http://127.0.0.1:5000"


class Inbox:
    """Keeps what it is sent; fails the next `num_failures` times, before or after keeping it."""

    def __init__(self) -> None:
        self.batches: list[list[Point]] = []
        self.tags: list[Tag] = []
        self.statuses: list[tuple[str, Status]] = []
        self.files: dict[str, str] = {}
        self.models: dict[str, str] = {}
        self.num_failures = 0

    def send_records(self, run_id: str, points: list[Point], tags: list[Tag]) -> None:
        self._fail()
        self.batches.append(points)
        self.tags += tags

    def send_status(self, run_id: str, status: Status, end_ms: int) -> None:
        self._fail()
        self.statuses.append((run_id, status))

    def send_file(self, run_id: str, path: Path, folder: str) -> None:
        self._fail()
        self.files[f"{folder}/{path.name}"] = path.read_text()

    def send_model(self, run_id: str, folder: Path) -> None:
        self._fail()
        self.models[f"{run_id}/{folder.name}"] = (folder / "MLmodel").read_text()

    def _fail(self) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise ConnectionError("away")

    @property
    def steps(self) -> list[int]:
        return [step for batch in self.batches for _, _, _, step in batch]


def points(first: int, last: int) -> list[Point]:
    return [("loss", step / 3, 1000 + step, step) for step in range(first, last)]


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    return Outbox.create(tmp_path, run_id="run", uri=URI)


def test_points_arrive_once_in_order_and_exactly(box: Outbox) -> None:
    inbox = Inbox()
    box.append(points=points(0, 700), tags=[("note", "a\nb")])
    box.deliver(inbox)
    box.append(points=points(700, 710))
    box.deliver(inbox)
    box.deliver(inbox)
    assert [point for batch in inbox.batches for point in batch] == points(0, 710)
    assert max(len(batch) for batch in inbox.batches) <= 1000  # the most MLflow takes
    assert inbox.tags == [("note", "a\nb")]


def test_what_could_not_be_sent_waits(box: Outbox) -> None:
    inbox = Inbox()
    box.append(points=points(0, 1200))
    box.put("a/b.txt", lambda path: path.write_text("b"))
    for _ in range(3):
        inbox.num_failures = 1
        with pytest.raises(ConnectionError):
            box.deliver(inbox)
    assert (inbox.steps, inbox.files) == ([], {})
    box.deliver(inbox)
    assert inbox.steps == list(range(1200))
    assert inbox.files == {"a/b.txt": "b"}


def test_points_that_keep_coming_do_not_hold_up_artifacts(box: Outbox) -> None:
    class SlowInbox(Inbox):
        def send_records(self, run_id: str, points: list[Point], tags: list[Tag]) -> None:
            super().send_records(run_id, points, tags)
            assert len(self.batches) < 10
            box.append(points=[("loss", 0.0, 0, -1)])

    inbox = SlowInbox()
    box.append(points=points(0, 1200))
    box.put("a.txt", Path.touch)
    box.deliver(inbox)
    assert inbox.steps[:1200] == list(range(1200))
    assert inbox.files == {"/a.txt": ""}


def test_a_newer_artifact_replaces_one_that_waits_or_is_on_its_way(box: Outbox) -> None:
    class SlowInbox(Inbox):
        def send_file(self, run_id: str, path: Path, folder: str) -> None:
            super().send_file(run_id, path, folder)
            if len(self.files) == 1 and path.read_text() == "2":
                box.put("c.pth", lambda draft: draft.write_text("3"))

    inbox = SlowInbox()
    box.put("c.pth", lambda draft: draft.write_text("1"))
    box.put("c.pth", lambda draft: draft.write_text("2"))
    box.deliver(inbox)
    assert inbox.files == {"/c.pth": "2"}
    box.deliver(inbox)
    assert inbox.files == {"/c.pth": "3"}


@pytest.mark.parametrize("artifact", ["/etc/passwd", "../c.pth", "a/../../c.pth", ""])
def test_artifacts_stay_inside_the_run(box: Outbox, artifact: str) -> None:
    with pytest.raises(ValueError, match="use a path relative to the run's artifacts"):
        box.put(artifact, Path.touch)


def test_only_an_outbox_without_owner_is_adopted(box: Outbox, tmp_path: Path) -> None:
    box.append(points=points(0, 3))
    assert Outbox.adopt(box.folder, uri=URI, running="other") is None
    box.release(remove=False)
    assert Outbox.adopt(box.folder, uri="http://127.0.0.1:6000", running="other") is None
    assert Outbox.adopt(tmp_path / "missing", uri=URI, running="other") is None
    (tmp_path / "file").touch()
    assert Outbox.adopt(tmp_path / "file", uri=URI, running="other") is None

    adopted = Outbox.adopt(box.folder, uri=URI, running="other")
    assert adopted is not None
    assert Outbox.adopt(box.folder, uri=URI, running="other") is None
    inbox = Inbox()
    adopted.deliver(inbox)
    assert inbox.steps == [0, 1, 2]
    adopted.release(remove=True)
    assert not box.folder.exists()


@pytest.mark.parametrize(
    ("ended", "running", "sent"),
    [
        ("FAILED", "other", [("run", "FAILED")]),
        (None, "other", [("run", "KILLED")]),  # its process died without a word
        ("FINISHED", "run", []),  # the next stage goes on with the run
        (None, "run", []),
    ],
)
def test_status_of_an_adopted_outbox(
    box: Outbox, ended: Status | None, running: str, sent: list[tuple[str, Status]]
) -> None:
    if ended is not None:
        box.end(ended)
    box.release(remove=False)
    adopted = Outbox.adopt(box.folder, uri=URI, running=running)
    assert adopted is not None
    inbox = Inbox()
    adopted.deliver(inbox)
    assert inbox.statuses == sent


def test_a_damaged_cursor_sends_again_and_half_a_line_is_left_out(box: Outbox) -> None:
    inbox = Inbox()
    box.append(points=points(0, 5))
    box.deliver(inbox)
    (box.folder / "sent").write_text("")
    with (box.folder / "journal.jsonl").open("a") as journal:
        journal.write('{"point": ["loss", 0.')
    box.deliver(inbox)
    assert inbox.steps == [*range(5), *range(5)]


def test_a_model_waits_whole_and_is_sent_whoever_adopts_it(box: Outbox, tmp_path: Path) -> None:
    inbox, saved = Inbox(), tmp_path / "saved" / "generator"
    saved.mkdir(parents=True)
    (saved / "MLmodel").write_text("first")
    box.put_model(saved)
    (saved / "MLmodel").write_text("changed since")
    inbox.num_failures = 1
    with pytest.raises(ConnectionError):
        box.deliver(inbox)
    assert inbox.models == {}

    box.release(remove=False)
    adopted = Outbox.adopt(box.folder, uri=URI, running="another")
    assert adopted is not None
    adopted.deliver(inbox)
    assert inbox.models == {"run/generator": "first"}
    adopted.deliver(Inbox())
    assert not list((box.folder / "models").rglob("MLmodel"))


def test_one_whose_removal_was_killed_is_removed_by_the_next(
    box: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, **_: object) -> None:
        (folder / "address.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            box.release(remove=True)
    (left,) = tmp_path.iterdir()
    assert Outbox.adopt(left, uri=URI, running="another") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["lock", "address"])
def test_one_whose_making_was_killed_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def half_written(path: Path, text: str, *_: object) -> None:
        path.write_bytes(text.encode()[: len(text) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "lock":
            patch.setattr("fcntl.flock", killed)
        else:
            patch.setattr("pathlib.Path.write_text", half_written)
            patch.setattr("pathlib.Path.unlink", killed)  # nor is anything removed
        with pytest.raises(KeyboardInterrupt):
            Outbox.create(tmp_path, run_id="run", uri=URI)
    (left,) = tmp_path.iterdir()
    assert Outbox.adopt(left, uri=URI, running="another") is None
    assert not list(tmp_path.iterdir())


def test_one_that_is_being_made_is_made_though_others_tidy_up(tmp_path: Path) -> None:
    done = threading.Event()

    def tidy_up() -> None:
        while not done.is_set():
            for folder in tmp_path.iterdir():
                adopted = Outbox.adopt(folder, uri=URI, running="another")
                assert adopted is None, "all have an owner"

    with ThreadPoolExecutor(3) as pool:
        tidying = [pool.submit(tidy_up) for _ in range(3)]
        try:
            boxes = [Outbox.create(tmp_path, run_id=str(n), uri=URI) for n in range(1000)]
        finally:
            done.set()
        for one in tidying:
            one.result()
    assert {box.folder for box in boxes} == set(tmp_path.iterdir())
    for box in boxes:
        assert (box.folder / "address.json").is_file()
        box.release(remove=True)


def test_one_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    parent = tmp_path / "outbox"
    parent.symlink_to(tmp_path / "unplugged")
    with pytest.raises(FileExistsError):
        Outbox.create(parent, run_id="run", uri=URI)
