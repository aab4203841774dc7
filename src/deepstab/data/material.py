"""Licensed videos and photographs that may be trained on: a list, fetched and verified.

The list names every file by its address at a commit, its SHA-256, its license and whom to credit.
The files come from the web, or from a mirror: a folder that holds video/FILE and photos/FILE, named
by the environment variable DEEPSTAB_MATERIAL_MIRROR. Photographs are scaled to a width of 1920 px;
the mirror's are so already, and have a hash of their own.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from deepstab.data.transfer import fetch
from deepstab.errors import DataError, DownloadError
from deepstab.files import sha256_of, whole_or_absent

MIRROR = "DEEPSTAB_MATERIAL_MIRROR"
NAME = "material"

_LIST = Path(__file__).with_name("material.json")
_PHOTO_WIDTH, _JPEG_QUALITY = 1920, 92
_SIMULTANEOUS = 4

Kind = Literal["video", "photos"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Item:
    """One file of the list.

    Attributes:
        kind: the folder it belongs in.
        file: its name there.
        url: where it is on the web, at a commit, so that it cannot change.
        sha256: of the file behind the address.
        bytes: size of the file behind the address.
        license: SPDX identifier.
        credit: whom to name, and where the work comes from.
        mirror_sha256: of the mirror's copy, where that is not the same file.
    """

    kind: Kind
    file: str
    url: str
    sha256: Sha256
    bytes: Annotated[int, Field(ge=1)]
    license: str
    credit: str
    mirror_sha256: Sha256 | None = None


def read_list(path: Path = _LIST) -> tuple[Item, ...]:
    """All that there is."""
    return _ITEMS.validate_json(path.read_bytes())


_ITEMS = TypeAdapter(tuple[Item, ...])


def fetch_material(folder: Path, *, kind: Kind, items: tuple[Item, ...]) -> Path:
    """Bring the files of one kind to a folder; what is there already is not fetched again.

    Args:
        folder: gets video/FILE or photos/FILE.
        kind: which of the two.
        items: the list; those of the other kind are left out.

    Returns:
        The folder of the files.

    Raises:
        DownloadError: a file cannot be fetched or is not what the list says.
        DataError: a photograph cannot be read.
    """
    wanted = [item for item in items if item.kind == kind]
    mirror = os.environ.get(MIRROR)
    (folder / kind).mkdir(parents=True, exist_ok=True)

    def bring(item: Item) -> None:
        destination = folder / kind / item.file
        if destination.exists():
            return
        if mirror is not None:
            _copy(item, Path(mirror), destination)
        elif kind == "video":
            fetch(item.url, destination, sha256=item.sha256)
        else:
            original = destination.with_name(f"{item.file}.original")
            fetch(item.url, original, sha256=item.sha256)
            _scale(original, destination)

    with ThreadPoolExecutor(_SIMULTANEOUS) as pool:
        list(pool.map(bring, wanted))
    return folder / kind


def _copy(item: Item, mirror: Path, destination: Path) -> None:
    source = mirror / item.kind / item.file
    expected = item.mirror_sha256 or item.sha256
    try:
        with whole_or_absent(destination) as partial:
            shutil.copyfile(source, partial)
            found = sha256_of(partial)
            if found != expected:
                raise DownloadError(
                    f"{source}: SHA-256 {found} instead of {expected}; mend the mirror, or unset "
                    f"{MIRROR} to fetch from the web"
                )
    except OSError as error:
        raise DownloadError(
            f"{source} cannot be copied: {error.strerror}; correct {MIRROR}, or unset it to "
            "fetch from the web"
        ) from None


def _scale(original: Path, destination: Path) -> None:
    """Write a photograph as a JPEG 1920 px wide, and remove the original."""
    image = cv2.imdecode(np.frombuffer(original.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{original}: not a readable image; remove it and run again")
    size = (_PHOTO_WIDTH, round(image.shape[0] * _PHOTO_WIDTH / image.shape[1]))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", scaled, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    with whole_or_absent(destination) as partial:
        partial.write_bytes(encoded.tobytes())
    original.unlink()
