"""Fetching one file over HTTP: resumed where it broke off, verified, whole or absent."""

from __future__ import annotations

import time
from pathlib import Path

from deepstab.errors import DownloadError
from deepstab.files import sha256_of

TIME_LIMITS_S = (5.0, 15.0)  # to connect, and between bytes
PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # before each retry of a transfer that had begun
_CHUNK_BYTES = 2**16


def fetch(url: str, destination: Path, *, sha256: str) -> None:
    """Fetch a file and verify it.

    Args:
        url: http or https.
        destination: file to write; it appears when it is complete and as expected. What a broken
            transfer brought lies beside it, under a name that ends in `.part`, and is resumed.
        sha256: of the whole file, hexadecimal.

    Raises:
        DownloadError: the server cannot be reached, refuses, breaks off every time, or sends
            something else.
    """
    import requests

    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".part")
    pauses_s = iter(PAUSES_S)
    while True:
        size_at_start = size_bytes(partial)
        try:
            _continue(url, partial)
            break
        except requests.RequestException as error:
            pause_s = next(pauses_s, None)
            # Waiting helps a transfer that broke off, not one that never began.
            if size_bytes(partial) == size_at_start or pause_s is None:
                raise DownloadError(
                    f"{url} cannot be fetched: {one_line(error)}; check the network and run "
                    "again (a broken transfer is resumed)"
                ) from None
            time.sleep(pause_s)
        except OSError as error:
            raise DownloadError(
                f"{destination} cannot be written: {error}; free some space or correct the "
                "permissions"
            ) from None
    found = sha256_of(partial)
    if found != sha256:
        partial.unlink()
        raise DownloadError(
            f"{url} is not what it was: SHA-256 {found} instead of {sha256}; run again, and if "
            "it stays so, the file behind the address has changed"
        )
    partial.replace(destination)


def one_line(error: BaseException) -> str:
    """What an error of requests says, in one line."""
    # requests and urllib3 wrap the cause (refused, timed out, incomplete) several deep.
    for inner in (getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            return one_line(inner)
    text = error.args[-1] if error.args and isinstance(error.args[-1], str) else str(error)
    return " ".join(text.split()) or type(error).__name__


def size_bytes(path: Path) -> int:
    """Size of a file, 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def _continue(url: str, partial: Path) -> None:
    """Append to a file what is missing of it."""
    import requests

    start = size_bytes(partial)
    # Without compression, so that a range counts the bytes of the file itself.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIME_LIMITS_S) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the hash will tell
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
