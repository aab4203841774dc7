"""The services tests start: a real `mlflow server`, and a PostgreSQL for it, on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

_STARTED_WITHIN_S = 120.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A program that answers HTTP on a port of its own, started in a folder."""

    def __init__(self, folder: Path, log: Path, *command: str, health: str, **env: str) -> None:
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder, self._log, self._health = folder, log, health
        self._command, self._env = [*command, "--port", str(self._port)], env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, **self._env},
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its workers are killed with it
            )

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}{self._health}", timeout=1).close()
        except OSError:
            return False
        return True

    def wait(self) -> None:
        give_up = time.monotonic() + _STARTED_WITHIN_S
        while not self.answers():
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < give_up, self._log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def mlflow_server(folder: Path, log: Path, *options: str) -> Server:
    """`mlflow server`, with further options."""
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = (sys.executable, "-m", "mlflow", "server", "--workers", "1", *options)
    return Server(folder, log, *command, health="/health", **environment)


def s3_server(folder: Path, log: Path) -> Server:
    """A store that speaks S3's protocol and keeps all in memory."""
    command = (sys.executable, "-m", "moto.server", "--host", "127.0.0.1")
    return Server(folder, log, *command, health="/moto-api/")


class Postgres:
    """A PostgreSQL cluster in a temporary folder, run by its Debian package's programs.

    It refuses to run as root; for root it runs as the package's user `postgres`.
    """

    def __init__(self) -> None:
        # Not pytest's folder, which other users cannot enter.
        self._folder = Path(tempfile.mkdtemp(prefix="deepstab-postgres-"))
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self._port = free_port()
        self.dsn = f"postgresql://tester@127.0.0.1:{self._port}/postgres"
        # What a bare `postgresql://` stands for depends on the version of SQLAlchemy.
        self.uri = self.dsn.replace(":", "+psycopg2:", 1)
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program(name: str) -> Path | None:
        """Debian keeps the programs of each version out of PATH."""
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        return found[-1] if found else None

    def start(self) -> None:
        data, log = self._folder / "data", self._folder / "log"
        create = ("--username=tester", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        with log.open("ab") as output:
            assert self._spawn("initdb", f"--pgdata={data}", *create, output=output).wait() == 0, (
                log.read_text()
            )
            self._process = self._spawn(
                *("postgres", "-D", str(data), "-h", "127.0.0.1", "-p", str(self._port)),
                *("-k", str(self._folder), "-F"),
                output=output,
            )
        give_up = time.monotonic() + _STARTED_WITHIN_S
        while "ready to accept connections" not in log.read_text():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once; the data are thrown away
            self._process.wait()
        shutil.rmtree(self._folder)

    def _spawn(self, name: str, *arguments: str, output: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self.program(name)), *arguments],
            cwd=self._folder,
            stdout=output,  # type: ignore[call-overload]
            stderr=output,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )
