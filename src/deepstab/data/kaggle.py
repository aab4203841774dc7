"""The DeepStab data set from Kaggle, fetched with kagglehub.

kagglehub finds the credentials, shows progress, resumes the archive it left in its cache and
checks its MD5; zipfile checks the CRC of every member. This module adds what is missing there:
time limits, retries, removal of a damaged archive (kagglehub would take it for a complete one
for ever), refusal of a hostile one, errors in one line, and a destination that is whole or absent.
"""

from __future__ import annotations

import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deepstab.data import transfer
from deepstab.data.archive import unpack_zip
from deepstab.errors import CredentialsError, DataError, DownloadError

if TYPE_CHECKING:
    import requests

_DAMAGE = (  # what unpacking raises, with MD5 or without
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
)
_OTHERWISE = "or set data.source to flights"
_SET_CREDENTIALS = (
    "set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or save ~/.kaggle/kaggle.json "
    f"(all from https://www.kaggle.com/settings), {_OTHERWISE}"
)


def credentials_found() -> bool:
    """Whether kagglehub finds credentials in the environment or below ~/.kaggle.

    Raises:
        CredentialsError: there is a credentials file, but it cannot be read.
    """
    from kagglehub.config import get_kaggle_credentials

    try:
        return get_kaggle_credentials() is not None
    except (OSError, TypeError, ValueError) as error:
        raise CredentialsError(
            f"Kaggle credentials cannot be read: {error}; {_SET_CREDENTIALS}"
        ) from None


def require_credentials() -> None:
    """Fail where `credentials_found` is false.

    Raises:
        CredentialsError: with the ways to give them.
    """
    if not credentials_found():
        raise CredentialsError(f"no Kaggle credentials found: {_SET_CREDENTIALS}")


def download_dataset(destination: Path, *, dataset: str, version: int) -> None:
    """Fetch one version of a Kaggle data set and unpack it.

    Args:
        destination: folder to create; it appears when everything is there. A transfer that broke
            off is kept in kagglehub's cache alone, and resumed by the next call.
        dataset: owner/name.
        version: the pinned version.

    Raises:
        DataError: the destination exists.
        CredentialsError: credentials are missing or refused.
        DownloadError: no such version, no network, a transfer that breaks or arrives damaged
            every time, an archive that no data set needs to be, or no room on the disk.
    """
    if destination.exists():
        raise DataError(f"{destination} exists already; remove it to fetch the data set again")
    require_credentials()
    try:
        tree = _fetch(dataset, version)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{destination.name}-", dir=destination.parent) as scratch:
            shutil.copytree(tree, Path(scratch, "tree")).rename(destination)
    except OSError as error:
        raise DownloadError(
            f"{dataset} version {version} cannot be written: {error}; "
            "free some space or correct the permissions"
        ) from None


def _fetch(dataset: str, version: int) -> Path:
    """The unpacked data set in kagglehub's cache."""
    import kagglehub
    import requests
    from kagglehub.cache import delete_from_cache, get_cached_archive_path
    from kagglehub.exceptions import DataCorruptionError
    from kagglehub.handle import DatasetHandle

    owner, name = dataset.split("/")
    handle = DatasetHandle(owner=owner, dataset=name, version=version)
    archive = Path(get_cached_archive_path(handle))
    size_at_start = transfer.size_bytes(archive)
    pauses_s = iter(transfer.PAUSES_S)
    while True:
        try:
            with _time_limits(), _careful_unpacking():
                return Path(kagglehub.dataset_download(str(handle)))
        except DataError as error:
            archive.unlink(missing_ok=True)
            raise DownloadError(f"{dataset} version {version}: {error}; {_OTHERWISE}") from None
        except requests.RequestException as error:
            failure = _explain(error, dataset, version)
            # Waiting helps a transfer that broke off, not one that never began.
            final = transfer.size_bytes(archive) == size_at_start and not isinstance(
                error, requests.exceptions.ChunkedEncodingError
            )
        except (DataCorruptionError, *_DAMAGE) as error:
            failure = DownloadError(
                f"{dataset} version {version} arrived damaged: {transfer.one_line(error)}; "
                f"run again, {_OTHERWISE}"
            )
            final = False
            archive.unlink(missing_ok=True)
            delete_from_cache(handle)
        pause_s = next(pauses_s, None)
        if final or pause_s is None:
            raise failure
        time.sleep(pause_s)


def _explain(error: requests.RequestException, dataset: str, version: int) -> DataError:
    status = error.response.status_code if error.response is not None else None
    match status:
        case 401 | 403:
            return CredentialsError(
                f"Kaggle refuses {dataset} version {version} (HTTP {status}): renew the "
                "credentials, accept the data set's rules if its page asks for it "
                f"(https://www.kaggle.com/datasets/{dataset}), {_OTHERWISE}"
            )
        case 404:
            return DownloadError(
                f"Kaggle has no {dataset} version {version} (HTTP 404): correct "
                f"data.kaggle_dataset and data.kaggle_version, {_OTHERWISE}"
            )
    return DownloadError(
        f"{dataset} version {version} cannot be fetched from Kaggle: {transfer.one_line(error)}; "
        f"check the network and run again (a broken transfer is resumed), {_OTHERWISE}"
    )


@contextmanager
def _time_limits() -> Iterator[None]:
    """Limit every request made inside: kagglesdk waits without end for an answer or a byte."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_in_time(self: HTTPAdapter, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or transfer.TIME_LIMITS_S
        return send(self, *args, **kwargs)

    HTTPAdapter.send = send_in_time  # type: ignore[method-assign]
    try:
        yield
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]


@contextmanager
def _careful_unpacking() -> Iterator[None]:
    """Unpack what is fetched inside by `unpack_zip`: kagglehub takes archives for what they say."""
    from kagglehub import http_resolver

    extract = http_resolver._extract_archive
    http_resolver._extract_archive = lambda archive, folder: unpack_zip(Path(archive), Path(folder))
    try:
        yield
    finally:
        http_resolver._extract_archive = extract
