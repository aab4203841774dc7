"""MLflow's SQLite file: made whole or not at all, moved with its checkout, and what ails it."""

from __future__ import annotations

import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

ARTIFACTS_FOLDER = "mlruns"  # beside the database

_LOCK_TIMEOUT_S = 120.0  # another process creates the database
_PREFIX = "sqlite:///"
_SIDE_FILES = ("-journal", "-wal", "-shm")
# Table and column of each place where a run's artifacts are named by an absolute address.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def sqlite_file(uri: str) -> Path | None:
    """The file a URI names, None if it is none of SQLite's."""
    if not uri.startswith(_PREFIX):
        return None
    return Path(urllib.parse.unquote(uri.removeprefix(_PREFIX).partition("?")[0]))


def sqlite_uri(path: Path) -> str:
    """The URI of a SQLite file."""
    return _PREFIX + path.absolute().as_posix().replace("%", "%25").replace("?", "%3F")


@contextmanager
def made(database: Path) -> Iterator[None]:
    """Hold the lock of a database that is there and whole; where there is none, it is made first.

    Several processes that open a new SQLite store at once would corrupt it for good, and one that
    is killed while it makes the tables would leave a store that nobody can open.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", _LOCK_TIMEOUT_S):
        if not database.exists() or database.stat().st_size == 0:
            _make(database)
        yield


def _make(database: Path) -> None:
    """Make the tables in a file beside, which then takes the name."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    draft = database.with_name(f"{database.name}.new")
    draft.unlink(missing_ok=True)
    for file in (draft, database):  # SQLite would take those of an earlier file for its own
        for suffix in _SIDE_FILES:
            file.with_name(file.name + suffix).unlink(missing_ok=True)
    # Nothing is lost with a draft: it goes to the disk once, and not after each of 300 statements.
    event.listen(Engine, "connect", _write_lazily)
    try:
        store: Any = SqlAlchemyStore(sqlite_uri(draft), artifacts_of(database).as_uri())
        store.engine.dispose()
    finally:
        event.remove(Engine, "connect", _write_lazily)
    with draft.open("rb+") as whole:
        os.fsync(whole.fileno())
    draft.replace(database)


def _write_lazily(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def artifacts_of(database: Path) -> Path:
    """The folder of the artifacts that belong to a database."""
    return database.absolute().parent / ARTIFACTS_FOLDER


def follow_checkout(database: Path) -> None:
    """Let the artifacts be those beside the database, where it was copied or moved with them.

    MLflow names them by absolute addresses, so that a copied checkout would write to the first
    one. Addresses of other forms are somebody's choice and stay, and so do those of artifacts that
    are where they are said to be and not here.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT experiment_id, artifact_location FROM experiments"
        for number, address in connection.execute(query).fetchall():
            here, there = artifacts_of(database) / str(number), _local_path(address)
            if there is None or there.parts[-2:] != here.parts[-2:]:
                continue
            if there.resolve() != here.resolve() and (here.is_dir() or not there.is_dir()):
                _readdress(connection, address, here.as_uri())


def _readdress(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _ADDRESSES:
        connection.execute(
            f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
            f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
            {"old": old, "new": new},
        )


def _local_path(address: str | None) -> Path | None:
    parts = urllib.parse.urlsplit(address or "")
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme in ("", "file") else None


def ailment(database: Path) -> str | None:
    """What is wrong with a database that MLflow refuses, and the remedy; None if it is sound."""
    try:
        uri = f"file:{urllib.parse.quote(str(database))}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            return _schema_problem(database, connection)
    except sqlite3.OperationalError:  # it is locked or cannot be opened, as MLflow says too
        return None
    except sqlite3.DatabaseError as error:
        return (
            f"the MLflow database {database} is damaged ({' '.join(str(error).split())[:80]}); "
            "restore a copy of it, or move it away: the next run makes a new one, and the "
            f"artifacts in {ARTIFACTS_FOLDER}/ stay"
        )


def _schema_problem(database: Path, connection: sqlite3.Connection) -> str | None:
    import mlflow
    from mlflow.store.db.utils import _get_latest_schema_revision

    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}

    def first(table: str, what: str) -> Any:
        row = connection.execute(f"SELECT {what} FROM {table}").fetchone()
        return row[0] if row else None

    version = first("alembic_version", "version_num") if "alembic_version" in tables else None
    if version == _get_latest_schema_revision():
        return None
    num_runs = first("runs", "count(*)") if "runs" in tables else 0
    if num_runs == 0:
        return (
            f"the MLflow database {database} is half-made, by a process that was killed, and holds "
            "no run; delete it and run again"
        )
    return (
        f"the tables of the MLflow database {database}, which holds {num_runs} runs, are not those "
        f"of mlflow {mlflow.__version__}; keep a copy and run `mlflow db upgrade "
        f"{sqlite_uri(database)}`, or use the mlflow that made it"
    )
