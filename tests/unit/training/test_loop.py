from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from deepstab.config import Params, parse_params
from deepstab.data.shards import ShardIndex
from deepstab.errors import CheckpointError, ShardError, TrainingError
from deepstab.models import checkpoints
from deepstab.tracking.names import BEST_NAME, FINAL_NAME
from deepstab.tracking.run import Tracker
from deepstab.training import loop
from deepstab.training.loop import train
from deepstab.training.state import StateFile
from tests.conftest import ROOT, with_values


class Recorder(Tracker):
    """Keeps what it is told; raises once a number of points was told, like a pulled plug."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.stop_after = stop_after

    def log_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        if self.stop_after is not None and len(self.points) >= self.stop_after:
            raise KeyboardInterrupt
        self.points.append((step, dict(values)))


def run(index: ShardIndex, params: Params, folder: Path, tracker: Tracker | None = None) -> None:
    train(
        index,
        params=params,
        vgg19=None,
        destination=folder / "checkpoints",
        state=StateFile(folder / "scratch", "this"),
        tracker=tracker or Tracker(),
    )


def weights(folder: Path, name: str = FINAL_NAME) -> str:
    return checkpoints.load(folder / "checkpoints" / name).weights_sha256()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tiny_index: ShardIndex, tiny_params: Params, tmp_path: Path
) -> None:
    other = tiny_params.model_copy(update={"seed": 8})
    for name, params in (("a", tiny_params), ("b", tiny_params), ("c", other)):
        run(tiny_index, params, tmp_path / name)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_resumed_training_equals_uninterrupted(
    tiny_index: ShardIndex, tiny_params: Params, tmp_path: Path
) -> None:
    params = tiny_params.model_copy(
        update={"train": tiny_params.train.model_copy(update={"epochs": 4})}
    )
    whole = Recorder()
    run(tiny_index, params, tmp_path / "whole", whole)
    # The plug is pulled in the third epoch.
    with pytest.raises(KeyboardInterrupt):
        run(tiny_index, params, tmp_path / "cut", Recorder(stop_after=len(whole.points) * 3 // 4))
    rest = Recorder()
    run(tiny_index, params, tmp_path / "cut", rest)
    assert 0 < len(rest.points) < len(whole.points)
    assert rest.points[-1] == whole.points[-1]
    for name in (BEST_NAME, FINAL_NAME):
        assert weights(tmp_path / "cut", name) == weights(tmp_path / "whole", name)


def test_epoch_0_is_the_networks_as_initialized(
    tiny_index: ShardIndex, tiny_params: Params, tmp_path: Path
) -> None:
    result = train(
        tiny_index,
        params=tiny_params,
        vgg19=None,
        destination=tmp_path,
        state=StateFile(tmp_path / "scratch", "this"),
        tracker=Tracker(),
    )
    first, *trained = result.history
    assert set(first) == {"epoch", "psnr", "cropped_ssim", "motion_error", "discriminator_accuracy"}
    assert [row["epoch"] for row in result.history] == [0, 1, 2]
    assert all("total" in row for row in trained)
    assert result.best.epoch in (1, 2)
    # Its row has no training terms.
    header, row, *_ = (line.split(",") for line in loop.history_csv(result.history).splitlines())
    assert row[header.index("total")] == ""


def test_learning_rates_fall_to_a_twentieth(tiny_index: ShardIndex, tiny_params: Params) -> None:
    settings = {"epochs": 3, "lr_g": 0.02, "lr_d": 0.004, "lr_decay": "cosine"}
    rates = {}
    for decay in ("cosine", "none"):
        params = tiny_params.train.model_copy(update=settings | {"lr_decay": decay})
        training = loop._Training(
            tiny_index,
            params=tiny_params.model_copy(update={"train": params}),
            vgg19=None,
            tracker=Tracker(),
        )
        networks = training._networks
        for epoch in (1, 2, 3):
            training._set_learning_rates(epoch)
            optimizers = (networks.optimizer_g, networks.optimizer_d)
            rates[decay, epoch] = [each.param_groups[0]["lr"] for each in optimizers]
    assert rates["cosine", 1] == pytest.approx([0.02, 0.004])
    assert rates["cosine", 2] == pytest.approx([0.525 * 0.02, 0.525 * 0.004])
    assert rates["cosine", 3] == pytest.approx([0.001, 0.0002])
    assert rates["none", 1] == rates["none", 3] == [0.02, 0.004]


def test_a_figure_that_is_not_known_cannot_select(
    tiny_index: ShardIndex,
    tiny_params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = {"psnr": 30.0, "cropped_ssim": 0.9}
    monkeypatch.setattr(loop._Training, "_validate", lambda _: without)
    recorder = Recorder()
    with pytest.raises(TrainingError, match="no true motion; set it to psnr") as caught:
        run(tiny_index, tiny_params, tmp_path, recorder)
    assert "\n" not in str(caught.value)
    assert recorder.points == []  # before the first step


def test_checkpoints_carry_what_made_them(
    tiny_index: ShardIndex, tiny_params: Params, tmp_path: Path
) -> None:
    run(tiny_index, tiny_params, tmp_path)
    for name in (BEST_NAME, FINAL_NAME):
        path = tmp_path / "checkpoints" / name
        tree = torch.load(path, weights_only=True)
        assert parse_params(tree["params"], origin=name) == tiny_params
        found = checkpoints.load(path)
        assert found.manifest_digest == tiny_index.manifest_digest
        assert found.build_generator().training is False
    best = checkpoints.load(tmp_path / "checkpoints" / BEST_NAME)
    final = checkpoints.load(tmp_path / "checkpoints" / FINAL_NAME)
    assert best.validation["motion_error"] <= final.validation["motion_error"]


def test_a_loss_that_is_not_finite_stops_with_step_and_term_and_keeps_the_best(
    tiny_index: ShardIndex, tiny_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = tiny_params.train.model_copy(update={"epochs": 50})
    train_epoch = loop._Training._train_epoch

    def poisoned(training: loop._Training, *rest: Any) -> dict[str, float]:
        # From the second epoch on, one weight is not a number.
        if (tmp_path / "checkpoints" / BEST_NAME).exists():
            with torch.no_grad():
                next(training._networks.generator.parameters())[0] = float("nan")
        return train_epoch(training, *rest)

    monkeypatch.setattr(loop._Training, "_train_epoch", poisoned)
    with pytest.raises(TrainingError, match=r"step \d+: loss term '\w+' is nan") as caught:
        run(tiny_index, tiny_params.model_copy(update={"train": epochs}), tmp_path)
    assert "\n" not in str(caught.value)
    best = checkpoints.load(tmp_path / "checkpoints" / BEST_NAME)
    assert best.epoch == 1
    assert all(torch.isfinite(value).all() for value in best.generator.values())


def test_published_losses_need_weights_and_say_so(
    tiny_index: ShardIndex, tiny_tree: dict[str, object], tmp_path: Path
) -> None:
    tree = with_values(tiny_tree, {"loss.lambda_vgg": 1.0, "loss.vgg_weights": "torchvision"})
    with pytest.raises(TrainingError, match="no VGG19 weights"):
        run(tiny_index, parse_params(tree, origin="t"), tmp_path)


def test_perceptual_term_trains_with_real_weights(
    tiny_index: ShardIndex, tiny_tree: dict[str, object], tmp_path: Path
) -> None:
    source = ROOT.parent / "shared/weights/vgg19_to_relu3_1.pth"
    if not source.is_file():
        pytest.skip("no VGG19 weights on this machine")
    values = {
        "loss.lambda_vgg": 1.0,
        "loss.vgg_weights": str(source),
        "loss.vgg_frames": 2,
        "train.epochs": 1,
    }
    params = parse_params(with_values(tiny_tree, values), origin="t")
    result = train(
        tiny_index,
        params=params,
        vgg19=source,
        destination=tmp_path,
        state=StateFile(tmp_path / "scratch", "this"),
        tracker=Tracker(),
    )
    assert 0 < result.history[1]["vgg"] < 10


def test_clips_longer_than_the_videos_are_refused_by_name(
    tiny_index: ShardIndex, tiny_tree: dict[str, object], tmp_path: Path
) -> None:
    values = {"model.clip_length": 41, "data.flights.num_frames": 41}
    params = parse_params(with_values(tiny_tree, values), origin="t")
    with pytest.raises(ShardError, match=r"train videos shorter .*\(40 frames\)"):
        run(tiny_index, params, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such checkpoint"), (b"text", "damaged"), ({"a": 1}, "not a DeepStab-GAN")],
)
def test_bad_checkpoints_are_one_line(
    tmp_path: Path, content: bytes | dict[str, int] | None, reason: str
) -> None:
    path = tmp_path / "c.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        checkpoints.load(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(
    tiny_index: ShardIndex, tiny_params: Params, tmp_path: Path
) -> None:
    run(tiny_index, tiny_params, tmp_path)
    found = checkpoints.load(tmp_path / "checkpoints" / FINAL_NAME)
    found.made_with["model"]["channels"] = 8
    checkpoints.save(found.as_tree(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        checkpoints.load(tmp_path / "other.pth").build_generator()


def test_history_is_plain_csv() -> None:
    text = loop.history_csv(
        [{"epoch": 0, "psnr": 30.123456789}, {"epoch": 1, "psnr": 31.0, "total": 2.0}]
    )
    assert text == "epoch,psnr,total\n0,30.1235,\n1,31,2\n"
    assert json.dumps(text)
