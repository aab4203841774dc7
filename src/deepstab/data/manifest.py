"""The manifest: which pairs of videos a data set holds, what was found wrong, and the split.

Written by the download stage, read by everything after it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from deepstab.config import SplitParams
from deepstab.errors import DataError, first_problem
from deepstab.files import whole_or_absent

MANIFEST_NAME = "manifest.json"
Split = Literal["train", "validation", "test"]
Source = Literal["kaggle", "folder", "videos", "flights"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _writable(name: str) -> str:
    if not name or any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        raise ValueError("a name is empty or holds control characters")
    return name


def _below(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("a path leads out of its folder")
    return path


Name = Annotated[str, AfterValidator(_writable)]
PathBelow = Annotated[str, AfterValidator(_writable), AfterValidator(_below)]
# What counts frames or px fits in 32 bits, whatever a damaged file says.
Count = Annotated[int, Field(ge=1, lt=2**31)]
# What is read from a file must be exactly what was written to it.
STORED = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, config=STORED)
class VideoFile:
    """One video file: path relative to the data folder, content hash, and what decoding found."""

    path: PathBelow
    sha256: Sha256
    num_frames: Count
    frame_rate: Annotated[float, Field(gt=0, lt=2**31)]
    width: Count
    height: Count


@dataclass(frozen=True, config=STORED)
class TruthFile:
    """A file that `deepstab.data.truth` reads: path relative to the data folder, content hash."""

    path: PathBelow
    sha256: Sha256


@dataclass(frozen=True, config=STORED)
class VideoPair:
    """The stable and the unstable recording of one scene.

    `num_frames` is the number that both have. `truth` is what is known of a generated recording.
    """

    name: Name
    scene: Name
    split: Split
    stable: VideoFile
    unstable: VideoFile
    num_frames: Count
    truth: TruthFile | None = None

    def __post_init__(self) -> None:
        """Refuse more frames than both videos have."""
        if self.num_frames > min(self.stable.num_frames, self.unstable.num_frames):
            raise ValueError(f"{self.num_frames} frames are more than both videos have")


@dataclass(frozen=True, config=STORED)
class Problem:
    """Something wrong with one pair, and what was done about it."""

    name: str
    problem: str
    action: Literal["left out", "cut to the shorter"]


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Manifest:
    """A checked data set.

    `requested` is the parameter `data.source`; `source` is what it resolved to. The counts that
    its file holds besides are for people: they are not read back, but counted again.
    """

    requested: str
    source: Source
    pairs: tuple[VideoPair, ...]
    problems: tuple[Problem, ...]
    vgg19_sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        """Refuse pairs that cannot be told apart."""
        if len({pair.name.replace("/", "_") for pair in self.pairs}) < len(self.pairs):
            raise ValueError("two pairs have the same name")

    @property
    def generated(self) -> bool:
        """Whether the videos were rendered rather than filmed."""
        return self.source == "flights"

    def of_split(self, split: Split) -> tuple[VideoPair, ...]:
        return tuple(pair for pair in self.pairs if pair.split == split)

    def digest(self) -> str:
        """SHA-256 over the content, the same for the same videos, split and source."""
        return hashlib.sha256(self._to_json().encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        per_split = Counter(pair.split for pair in self.pairs)
        return {
            **{split: per_split[split] for split in SPLITS},
            "left_out": sum(problem.action == "left out" for problem in self.problems),
            "cut": sum(problem.action == "cut to the shorter" for problem in self.problems),
        }

    def save(self, path: Path) -> None:
        with whole_or_absent(path) as partial:
            partial.write_text(self._to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            return _MANIFEST.validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"{path}: no manifest; run the download stage first") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise DataError(
                f"{path}: damaged manifest ({first_problem(error)}); run download again"
            ) from None

    def _to_json(self) -> str:
        tree = {**_MANIFEST.dump_python(self, mode="json"), "counts": self.counts()}
        return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


_MANIFEST = TypeAdapter(Manifest)


def assign_splits(scenes: dict[str, str], split: SplitParams) -> dict[str, Split]:
    """Give every video its split, by name or by fraction of scenes.

    A fraction is taken of the scenes in the order of the SHA-256 of their names, at least one
    scene each; a list names scenes. So no scene is in two splits, and the order of the folder
    plays no part.

    Args:
        scenes: video name -> scene; videos of one scene stay together.
        split: lists of scenes, or fractions.

    Raises:
        DataError: a named video is not there, or a split would be empty.
    """
    if isinstance(split.test, tuple) and isinstance(split.validation, tuple):
        held_out: dict[str, Split] = dict.fromkeys(split.test, "test")
        held_out |= dict.fromkeys(split.validation, "validation")
        splits = {name: held_out.get(scene, "train") for name, scene in scenes.items()}
    else:
        ranked = sorted(
            set(scenes.values()), key=lambda scene: hashlib.sha256(scene.encode()).hexdigest()
        )
        num_test = _at_least_one(split.test, len(ranked))
        num_validation = _at_least_one(split.validation, len(ranked))
        by_scene: dict[str, Split] = dict.fromkeys(ranked, "train")
        by_scene |= dict.fromkeys(ranked[:num_test], "test")
        by_scene |= dict.fromkeys(ranked[num_test : num_test + num_validation], "validation")
        splits = {name: by_scene[scene] for name, scene in scenes.items()}
    counts = Counter(splits.values())
    for wanted in SPLITS:
        if not counts[wanted]:
            raise DataError(
                f"no video is left for {wanted} among {len(scenes)} usable pairs "
                f"({', '.join(sorted(scenes)[:8]) or 'none'}); add videos or change data.split"
            )
    return splits


def _at_least_one(fraction: object, count: int) -> int:
    assert isinstance(fraction, float)
    return max(1, round(fraction * count))
