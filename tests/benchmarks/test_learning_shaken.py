"""Motion error of the learning benchmark: by hand, and small clips shaken and measured."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from benchmarks.learning.contest import Contest
from benchmarks.learning.shaken import (
    MotionErrors,
    Recording,
    known_errors_px,
    measure_recording,
    report,
    shake,
)

from deepstab.data.truth import Truth
from deepstab.errors import DataError
from deepstab.stabilization.whole_video import Crop
from deepstab.video.writer import write_video

CLEAN, FAULTY = "clean", "faulty"


def errors(
    scene: str, faults: str, locked_off: bool, *, untrained: float, trained: float
) -> MotionErrors:
    px = {"untrained 0": untrained, "one": trained}
    return MotionErrors(scene, faults, locked_off, num_known=30, error_px=px)


def test_means_and_intervals_are_over_clips_of_each_kind() -> None:
    clips = [
        errors("still", CLEAN, True, untrained=0.1, trained=0.1),
        errors("still", FAULTY, True, untrained=0.4, trained=0.1),
        errors("calm", CLEAN, True, untrained=0.2, trained=0.1),
        errors("pan", CLEAN, False, untrained=0.2, trained=0.4),
    ]
    lines = report(clips, ["one"]).splitlines()
    found = {line[:46].strip(): line[46:].split() for line in lines}
    assert found["still, faulty"] == ["0.400", "0.100", "0.250"]
    assert lines.index(next(x for x in lines if x.startswith("pan"))) > 3  # after locked-off ones
    # The cube root of .1 * .4 * .2.
    assert found["geometric mean, locked-off"] == ["0.200", "0.100", "0.500"]
    assert found["geometric mean, moving"] == ["0.200", "0.400", "2.000"]
    assert found["geometric mean, all"] == ["0.200", "0.141", "0.707"]
    # Recordings of a clip are one: the ratios of the two locked-off clips are both a half.
    assert found["locked-off, one"] == ["0.500", "[0.500,", "0.500]", "excludes", "1"]
    assert found["all, one"][1:] == ["[0.500,", "2.000]", "includes", "1"]
    assert "120 frames with known motion" in lines


def test_seeds_of_untrained_networks_are_averaged() -> None:
    clip = errors("still", CLEAN, True, untrained=0.1, trained=0.1)
    clip.error_px["untrained 1"] = 0.4
    line = next(line for line in report([clip], ["one"]).splitlines() if line.startswith("still"))
    assert line.split()[-3:] == ["0.200", "0.100", "0.500"]


def test_a_clip_without_truth_is_named_and_not_averaged() -> None:
    known = errors("still", CLEAN, True, untrained=0.2, trained=0.1)
    unknown = replace(known, scene="fog", num_known=0, error_px=dict.fromkeys(known.error_px, 1e9))
    text = report([known, unknown], ["one"])
    assert "nobody knows how they moved: fog, clean" in text
    assert "1000000000" not in text


def test_the_error_is_in_px_at_width_640_where_the_truth_is_known() -> None:
    true = np.zeros((4, 4), np.float32)
    true[2] = np.nan
    motion = np.zeros((4, 4))
    motion[:, 0] = 0.01  # of half the square root of the area
    motion[3, 0] = 0
    motion[3, 1] = 0.02
    # At 640x160 that unit is 160 px. The first frame has no motion, the third no truth.
    assert known_errors_px(motion, true, aspect=4.0) == pytest.approx([1.6, 3.2])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders, with a photo held still and one panned over."""
    folder = tmp_path_factory.mktemp("clips")
    photo = skimage.data.astronaut()
    for name, step_px in (("still", 0), ("pan", 2)):
        starts = [20 + step_px * index for index in range(40)]
        frames = [np.ascontiguousarray(photo[100:340, x : x + 400]) for x in starts]
        (folder / name).mkdir()
        path = folder / name / f"{name}.mp4"
        write_video(path, frames, frame_rate=Fraction(30), crf=18, preset="ultrafast")
    return [folder / "still", folder / "pan"]


@pytest.fixture(scope="module")
def recordings(
    folders: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Recording]:
    """Those clips, shaken, by name and faults."""
    found = shake(folders, tmp_path_factory.mktemp("shaken"))
    return {(recording.scene, recording.faults): recording for recording in found}


@pytest.mark.parametrize("scene", ["still", "pan"])
@pytest.mark.parametrize("faults", [CLEAN, FAULTY])
def test_shaken_clips_are_measured_against_their_truth(
    recordings: dict[tuple[str, str], Recording],
    untrained_weights: Path,
    changed_weights: Path,
    scene: str,
    faults: str,
) -> None:
    weights = {"same": str(untrained_weights), "other": str(changed_weights)}
    contest = Contest(weights, num_seeds=1, crop=Crop("auto", 0.2))
    recording = recordings[scene, faults]
    found = measure_recording(contest, recording)
    assert (found.name, found.locked_off) == (f"{scene}, {faults}", scene == "still")
    assert found.error_px["same"] == found.error_px["untrained 0"]
    assert found.error_px["other"] != found.error_px["untrained 0"]
    motion = Truth.load(recording.truth).motion
    moved_px = known_errors_px(np.zeros(motion.shape), motion, aspect=400 / 240)
    assert found.num_known == len(moved_px) > 30
    assert found.error_px["same"] < 0.25 * moved_px.mean()


def test_a_clip_is_always_shaken_the_same_way(
    folders: list[Path], recordings: dict[tuple[str, str], Recording], tmp_path: Path
) -> None:
    for again in shake(folders[:1], tmp_path):
        before = recordings[again.scene, again.faults]
        assert again.video.read_bytes() == before.video.read_bytes()
        assert again.truth.read_bytes() == before.truth.read_bytes()
    clean, faulty = (recordings["still", faults].video.read_bytes() for faults in (CLEAN, FAULTY))
    assert clean != faulty


def test_folders_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no video"):
        shake([tmp_path], tmp_path / "shaken")
    with pytest.raises(DataError, match="does not exist"):
        shake([tmp_path / "nowhere"], tmp_path / "shaken")
