"""The manifest: which pairs of videos a data set holds, what was found wrong, and the split.

Written by the download stage, read by everything after it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepstab.config import SplitParams
from deepstab.errors import DataError

MANIFEST_NAME = "manifest.json"
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class VideoFile:
    """One video file: path relative to the data folder, content hash, and what decoding found."""

    path: str
    sha256: str
    num_frames: int
    frame_rate: float
    width: int
    height: int


@dataclass(frozen=True)
class VideoPair:
    """The stable and the unstable recording of one scene.

    `truth` is the path of the known corrections (flights only): thetas (num_frames, 2, 3).
    `num_frames` is the number that both have.
    """

    name: str
    scene: str
    split: Split
    stable: VideoFile
    unstable: VideoFile
    num_frames: int
    truth: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong with one pair, and what was done about it."""

    name: str
    problem: str
    action: Literal["left out", "cut to the shorter"]


@dataclass(frozen=True)
class Manifest:
    """A checked data set.

    `requested` is the parameter `data.source`; `source` is what it resolved to.
    """

    requested: str
    source: Literal["kaggle", "folder", "flights"]
    pairs: tuple[VideoPair, ...]
    problems: tuple[Problem, ...]
    vgg19_sha256: str | None = None

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
        path.write_text(self._to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            pairs = tuple(
                VideoPair(
                    **{
                        **pair,
                        "stable": VideoFile(**pair["stable"]),
                        "unstable": VideoFile(**pair["unstable"]),
                    }
                )
                for pair in tree.pop("pairs")
            )
            tree.pop("counts")
            problems = tuple(Problem(**problem) for problem in tree.pop("problems"))
            return cls(**tree, pairs=pairs, problems=problems)
        except FileNotFoundError:
            raise DataError(f"{path}: no manifest; run the download stage first") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged manifest ({error}); run download again") from None

    def _to_json(self) -> str:
        tree = {**dataclasses.asdict(self), "counts": self.counts()}
        return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def assign_splits(scenes: dict[str, str], split: SplitParams) -> dict[str, Split]:
    """Give every video its split, by name or by fraction of scenes.

    A fraction is taken of the scenes in the order of the SHA-256 of their names, at least one
    scene each, so that no scene is in two splits and the order of the folder plays no part.

    Args:
        scenes: video name -> scene; videos of one scene stay together.
        split: lists of names, or fractions.

    Raises:
        DataError: a named video is not there, or a split would be empty.
    """
    if isinstance(split.test, tuple) and isinstance(split.validation, tuple):
        held_out: dict[str, Split] = dict.fromkeys(split.test, "test")
        held_out |= dict.fromkeys(split.validation, "validation")
        splits = {name: held_out.get(name, "train") for name in scenes}
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
