"""VGG19's weights: reduced, checked, and loaded without a network."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg16, vgg19

from deepstab.errors import CheckpointError, DownloadError
from deepstab.models import vgg19 as vgg

REAL_WEIGHTS = Path(__file__).parents[4] / "shared" / "weights" / "vgg19_to_relu3_1.pth"
CHANNELS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256)}


def random_state() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    state = {}
    for index, (channels_in, channels_out) in CHANNELS.items():
        state[f"features.{index}.weight"] = 0.05 * torch.randn(
            channels_out, channels_in, 3, 3, generator=rng
        )
        state[f"features.{index}.bias"] = torch.randn(channels_out, generator=rng)
    return state


def all_zero(network: Callable[..., nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        empty = network(weights=None, init_weights=False)
    return {key: torch.zeros(1).expand(v.shape) for key, v in empty.state_dict().items()}


def save(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "out" / "vgg19.pth"


def refusal(weights: str, destination: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        vgg.place_vgg19(weights, destination)
    assert not destination.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_none_places_nothing(destination: Path) -> None:
    assert vgg.place_vgg19("none", destination) is None
    assert not destination.parent.exists()


def test_a_file_is_placed_whole_with_its_hash(tmp_path: Path, destination: Path) -> None:
    state = random_state()
    digest = vgg.place_vgg19(save(state, tmp_path / "given.pth"), destination)
    assert digest == hashlib.sha256(destination.read_bytes()).hexdigest()
    assert list(destination.parent.iterdir()) == [destination]
    placed = torch.load(destination, weights_only=True)
    assert list(placed) == list(state)
    assert all(torch.equal(placed[key], state[key]) for key in state)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, destination: Path) -> None:
    # All of VGG19, without its size on disk: one zero stands for each layer beyond relu3_1.
    whole = all_zero(vgg19) | dict(reversed(random_state().items()))
    elsewhere = tmp_path / "another_name.pth"
    first = vgg.place_vgg19(save(random_state(), tmp_path / "a.pth"), destination)
    assert first == vgg.place_vgg19(save(whole, tmp_path / "b.pth"), elsewhere)
    assert first == vgg.place_vgg19(str(destination), destination)


def test_features_agree_with_the_layers_written_out(tmp_path: Path, destination: Path) -> None:
    state = random_state()
    vgg.place_vgg19(save(state, tmp_path / "given.pth"), destination)
    features = vgg.load_vgg19_features(destination)
    frames = torch.rand(2, 3, 32, 48)
    expected = frames
    for index in CHANNELS:
        expected = nn.functional.conv2d(
            expected, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1
        ).relu()
        if index in (2, 7):
            expected = nn.functional.max_pool2d(expected, 2)
    torch.testing.assert_close(features(frames), expected)
    assert expected.shape == (2, 256, 8, 12)
    assert not features.training
    assert not any(p.requires_grad for p in features.parameters())


def test_gradients_reach_the_frames(tmp_path: Path, destination: Path) -> None:
    vgg.place_vgg19(save(random_state(), tmp_path / "given.pth"), destination)
    frames = torch.rand(1, 3, 16, 16, requires_grad=True)
    vgg.load_vgg19_features(destination)(frames).sum().backward()
    assert frames.grad is not None
    assert frames.grad.abs().sum() > 0


def test_a_missing_file(tmp_path: Path, destination: Path) -> None:
    assert "no such VGG19 weights" in refusal(str(tmp_path / "absent.pth"), destination)


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x02}q\x00."], ids=repr)
def test_a_file_of_something_else(tmp_path: Path, destination: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    assert str(path) in refusal(str(path), destination)


def test_a_truncated_file(tmp_path: Path, destination: Path) -> None:
    path = tmp_path / "short.pth"
    save(random_state(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    assert "not readable" in refusal(str(path), destination)


def test_a_pickled_model_is_refused(tmp_path: Path, destination: Path) -> None:
    assert "not readable" in refusal(save(nn.Conv2d(3, 3, 3), tmp_path / "m.pth"), destination)


def test_no_state_dict(tmp_path: Path, destination: Path) -> None:
    wrapped = {"state_dict": random_state()}
    assert "no state dict" in refusal(save(wrapped, tmp_path / "w.pth"), destination)


def _without_bias(state: dict[str, Tensor]) -> str:
    del state["features.7.bias"]
    return "features.7.bias"


def _with_another_key(state: dict[str, Tensor]) -> str:
    state["encoder.weight"] = torch.zeros(1)
    return "encoder.weight"


def _with_another_shape(state: dict[str, Tensor]) -> str:
    state["features.5.weight"] = torch.zeros(128, 64, 5, 5)
    return "features.5.weight"


def _with_half_precision(state: dict[str, Tensor]) -> str:
    state["features.0.weight"] = state["features.0.weight"].half()
    return "features.0.weight"


@pytest.mark.parametrize(
    "spoil", [_without_bias, _with_another_key, _with_another_shape, _with_half_precision]
)
def test_wrong_keys_are_named(tmp_path: Path, destination: Path, spoil: Any) -> None:
    state = random_state()
    key = spoil(state)
    message = refusal(save(state, tmp_path / "wrong.pth"), destination)
    assert f"first '{key}'" in message
    with pytest.raises(CheckpointError, match=key):
        vgg.load_vgg19_features(tmp_path / "wrong.pth")


def test_vgg16_is_told_apart(tmp_path: Path, destination: Path) -> None:
    # Up to relu3_1 its shapes are VGG19's; its convolutions lie elsewhere further on.
    state = all_zero(vgg16)
    assert "features.17.weight" in refusal(save(state, tmp_path / "vgg16.pth"), destination)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder served on loopback, its URL, and the log of requests."""
    folder = tmp_path / "web"
    folder.mkdir()
    log: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            log.append(str(args[0]).split()[0])

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, f"http://127.0.0.1:{server.server_port}", log
    server.shutdown()
    server.server_close()
    thread.join()


def serve_weights(
    web: tuple[Path, str, list[str]], monkeypatch: pytest.MonkeyPatch, *, digest: str | None = None
) -> Path:
    """Serve small weights as torchvision's; return their place in torch's hub cache."""
    folder, url, _ = web
    content = Path(save(random_state(), folder / "vgg19.pth")).read_bytes()
    name = f"vgg19-{digest or hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "vgg19.pth").rename(folder / name)
    # The real file is 548 MB away; torch.hub, its checksum and its cache are the real ones.
    monkeypatch.setattr(VGG19_Weights.IMAGENET1K_V1.value, "url", f"{url}/{name}")
    return Path(torch.hub.get_dir(), "checkpoints", name)


def test_torchvision_weights_are_fetched_once(
    web: tuple[Path, str, list[str]], destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = serve_weights(web, monkeypatch)
    digest = vgg.place_vgg19("torchvision", destination)
    assert digest == vgg.place_vgg19("torchvision", destination)
    assert digest == vgg.place_vgg19(str(cached), destination)
    assert web[2] == ["HEAD", "GET"]


def test_torchvision_weights_with_a_wrong_checksum(
    web: tuple[Path, str, list[str]], destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = serve_weights(web, monkeypatch, digest="00000000")
    with pytest.raises(DownloadError, match="invalid hash"):
        vgg.place_vgg19("torchvision", destination)
    assert not cached.exists()
    assert not destination.exists()


def test_damage_in_torchs_cache_is_noticed(
    web: tuple[Path, str, list[str]], destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = serve_weights(web, monkeypatch)
    vgg.place_vgg19("torchvision", destination)
    destination.unlink()
    content = bytearray(cached.read_bytes())
    content[-100_000] ^= 1
    cached.write_bytes(content)
    assert "delete the file" in refusal("torchvision", destination)


def test_torchvision_weights_gone_from_the_server(
    web: tuple[Path, str, list[str]], destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_weights(web, monkeypatch)
    for path in web[0].iterdir():
        path.unlink()
    with pytest.raises(DownloadError, match="404"):
        vgg.place_vgg19("torchvision", destination)


def test_torchvision_weights_without_network(
    tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    start_s = time.monotonic()
    with pytest.raises(DownloadError, match=r"vgg19-dcbb9e9d\.pth cannot be fetched.*set loss"):
        vgg.place_vgg19("torchvision", destination)
    assert time.monotonic() - start_s < 5
    assert not destination.exists()


@pytest.mark.skipif(not REAL_WEIGHTS.exists(), reason="the real weights are not here")
def test_the_real_weights(destination: Path) -> None:
    vgg.place_vgg19(str(REAL_WEIGHTS), destination)
    features = vgg.load_vgg19_features(destination)
    given = torch.load(REAL_WEIGHTS, weights_only=True)
    placed = torch.load(destination, weights_only=True)
    assert all(torch.equal(placed[key], given[key]) for key in given)
    # A gray frame with an edge: trained filters answer at the edge more than away from it.
    frame = torch.zeros(1, 3, 64, 64)
    frame[..., 32:] = 1
    response = features(frame).sum(dim=(0, 1, 2))
    assert torch.isfinite(response).all()
    assert response[7:9].mean() > response[3:5].mean()
