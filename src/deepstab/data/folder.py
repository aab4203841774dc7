"""Pairs of videos in the DeepStab folder layout: found, checked, split, and hashed."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deepstab.config import DataParams
from deepstab.data.manifest import (
    Manifest,
    Problem,
    Source,
    TruthFile,
    VideoFile,
    VideoPair,
    assign_splits,
)
from deepstab.errors import DataError, VideoError
from deepstab.files import sha256_of
from deepstab.video.frames import probe, read_frames

SUFFIXES = (".avi", ".mp4", ".mov", ".mkv")
# File systems take 255; names of plots and players are made of that of the video.
_MAX_NAME_BYTES = 200


def find_videos(root: Path) -> dict[str, dict[str, Path]]:
    """Find {stable,unstable}/N.* below a root.

    The two folders may stand below `deepstab/`, split folders or both, at most three levels down.

    Args:
        root: folder to search.

    Returns:
        "stable" and "unstable", each name -> path. Names are file names without suffix; a name
        that occurs twice on one side gets its parent folders in front (`train/3`). A folder that
        links lead to a second time does not count again.

    Raises:
        DataError: two files of one side cannot be told apart, also where `/` becomes `_`, or a
            name cannot be written down.
    """
    sides: dict[str, dict[str, Path]] = {}
    names: dict[str, str] = {}
    for side in ("stable", "unstable"):
        folders: dict[Path, Path] = {}
        for depth in range(4):
            for folder in sorted(root.glob("*/" * depth + side)):
                if folder.is_dir():
                    folders.setdefault(folder.resolve(), folder)
        paths = [path for folder in folders.values() for path in videos_in(folder)]
        stems = [path.stem for path in paths]
        named: dict[str, Path] = {}
        for path in paths:
            prefix = path.parent.parent.relative_to(root).as_posix()
            name = path.stem if stems.count(path.stem) == 1 else f"{prefix}/{path.stem}"
            _check_length(name, path)
            if name in named:
                raise DataError(f"{path} and {named[name]} have the same name; keep one of the two")
            other = names.setdefault(_flat(name), name)
            if other != name:
                raise DataError(f"{root}: {other} and {name} would be one file; rename one of them")
            named[name] = path
        sides[side] = named
    return sides


def videos_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The videos among the paths of a folder that match a pattern, ordered by name.

    Raises:
        DataError: a name is no UTF-8, holds control characters, or is too long.
    """
    paths = sorted(
        path for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    for path in paths:
        if any(unicodedata.category(char) in ("Cc", "Cs") for char in str(path)):
            raise DataError(f"{path}: not UTF-8 or holds control characters; rename it")
        _check_length(path.stem, path)
    return paths


def holds_videos(root: Path) -> bool:
    """Whether a folder holds at least one video in each of stable/ and unstable/."""
    return root.is_dir() and all(find_videos(root).values())


def copy_videos(root: Path, destination: Path) -> None:
    """Copy the videos of a data set to destination/{stable,unstable}, names made flat.

    Raises:
        DataError: there are no pairs of videos under root, or one cannot be copied.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set data.kaggle_root to the folder of the videos")
    sides = find_videos(root)
    if not all(sides.values()):
        raise DataError(
            f"{root}: no {{stable,unstable}}/N.avi (or mp4, mov, mkv) found; "
            "set data.kaggle_root to the folder that holds both; to `dvc exp run --temp` and "
            f"`--queue` add `-C {root}/stable -C {root}/unstable`, as git does not have them"
        )
    for side, videos in sides.items():
        folder = destination / side
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in videos.items():
            try:
                shutil.copyfile(path, folder / (_flat(name) + path.suffix.lower()))
            except OSError as error:
                raise DataError(
                    f"{path} cannot be copied to {folder}: {error.strerror}; correct its "
                    "permissions or free some space"
                ) from None


def check_pairs(
    root: Path,
    *,
    params: DataParams,
    source: Source,
    scenes: dict[str, str] | None = None,
    truths: dict[str, str] | None = None,
) -> Manifest:
    """Decode every video under root once, pair them, and write down what is wrong by name.

    The rule: a video without partner, one that does not decode to its end, and a pair of different
    frame sizes are left out (`data.on_bad_pair: skip`) or stop the run (`error`); a pair of
    different lengths is cut to the shorter.

    Args:
        root: folder with {stable,unstable}/N.*; the manifest's paths are relative to it.
        params: the data section.
        source: what `data.source` resolved to.
        scenes: name -> scene, for videos that share one; by default each is its own.
        truths: name -> path of what is known of it, relative to root.

    Raises:
        DataError: `error` and something is wrong (all of it named), or a split is empty.
    """
    sides = find_videos(root)
    names = sorted(set(sides["stable"]) | set(sides["unstable"]), key=_natural)
    paired = [name for name in names if all(name in side for side in sides.values())]
    problems = [
        Problem(name, f"only in {'stable' if name in sides['stable'] else 'unstable'}/", "left out")
        for name in names
        if name not in paired
    ]
    usable, broken = _usable_pairs(root, paired, sides)
    problems += broken
    if params.on_bad_pair == "error":
        _refuse_left_out(problems, num_videos=len(names))
    scene_of = {name: (scenes or {}).get(name, name) for name, _, _ in usable}
    splits = assign_splits(scene_of, params.split)
    pairs = tuple(
        VideoPair(
            name=name,
            scene=scene_of[name],
            split=splits[name],
            stable=stable,
            unstable=unstable,
            num_frames=min(stable.num_frames, unstable.num_frames),
            truth=_truth_file((truths or {}).get(name), root),
        )
        for name, stable, unstable in usable
    )
    return Manifest(
        requested=params.source,
        source=source,
        pairs=pairs,
        problems=tuple(problems),
    )


def _refuse_left_out(problems: list[Problem], *, num_videos: int) -> None:
    left_out = [problem for problem in problems if problem.action == "left out"]
    if left_out:
        listing = "; ".join(f"{problem.name} ({problem.problem})" for problem in left_out)
        raise DataError(
            f"{len(left_out)} of {num_videos} videos cannot be used: {listing}; "
            "mend them, or set data.on_bad_pair: skip to leave them out"
        )


def _usable_pairs(
    root: Path, names: list[str], sides: dict[str, dict[str, Path]]
) -> tuple[list[tuple[str, VideoFile, VideoFile]], list[Problem]]:
    """Decode the videos that have a partner: (name, stable, unstable) of the good, and the bad."""
    problems: list[Problem] = []
    paths = [sides[side][name] for name in names for side in ("stable", "unstable")]
    with ThreadPoolExecutor() as pool:
        files = list(pool.map(lambda path: _inspect(path, root), paths))
    usable: list[tuple[str, VideoFile, VideoFile]] = []
    for name, stable, unstable in zip(names, files[::2], files[1::2], strict=True):
        broken = [str(found) for found in (stable, unstable) if isinstance(found, VideoError)]
        if isinstance(stable, VideoError) or isinstance(unstable, VideoError):
            problems.append(Problem(name, "; ".join(broken), "left out"))
        elif (stable.width, stable.height) != (unstable.width, unstable.height):
            sizes = f"{stable.width}x{stable.height} and {unstable.width}x{unstable.height}"
            problems.append(Problem(name, f"sizes differ: {sizes}", "left out"))
        else:
            if stable.num_frames != unstable.num_frames:
                lengths = f"{stable.num_frames} and {unstable.num_frames} frames"
                problems.append(Problem(name, f"lengths differ: {lengths}", "cut to the shorter"))
            usable.append((name, stable, unstable))
    return usable, problems


def _inspect(path: Path, root: Path) -> VideoFile | VideoError:
    try:
        info = probe(path)
        num_frames = _count(read_frames(path))
    except VideoError as error:
        return error
    return VideoFile(
        path=path.relative_to(root).as_posix(),
        sha256=sha256_of(path),
        num_frames=num_frames,
        frame_rate=round(float(info.frame_rate), 6),
        width=info.width,
        height=info.height,
    )


def _truth_file(path: str | None, root: Path) -> TruthFile | None:
    return None if path is None else TruthFile(path, sha256_of(root / path))


def _count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def _check_length(name: str, path: Path) -> None:
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise DataError(f"{path}: {name} has more than {_MAX_NAME_BYTES} bytes; rename it")


def _flat(name: str) -> str:
    """The name of a video as that of one file."""
    return name.replace("/", "_")


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (2**31, name)
