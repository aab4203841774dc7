"""The clips of a folder, which every benchmark on real videos is given."""

from __future__ import annotations

from pathlib import Path

from deepstab.errors import DataError

_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})


def find_clips(folder: Path) -> list[Path]:
    """List the videos in a folder and the folders in it, in order of their names.

    Raises:
        DataError: there is no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise DataError(f"folder of clips {folder} does not exist; check the path")
    clips = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not clips:
        raise DataError(
            f"folder of clips {folder} holds no video ({', '.join(sorted(_SUFFIXES))}); "
            "name another one"
        )
    return clips
