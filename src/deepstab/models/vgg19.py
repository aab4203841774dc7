"""VGG19's first layers, the perceptual loss's fixed network: placed once, then read from a file.

Only the five convolutions up to relu3_1 (torchvision's `features[:12]`) are kept: 2 MB of 548.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from deepstab.errors import CheckpointError, DownloadError
from deepstab.files import sha256_of, whole_or_absent

VGG19_NAME = "vgg19_relu3_1.pth"
_NUM_LAYERS = 12  # features[:12] ends with relu3_1
_CONVOLUTIONS = (0, 2, 5, 7, 10)
_CONNECT_LIMIT_S = 3.0  # for each of the host's addresses
_STALL_LIMIT_S = 30.0
_OTHERWISE = "or set loss.vgg_weights to the path of a .pth file, or to none with loss.lambda_vgg 0"


def place_vgg19(weights: str, destination: Path) -> str | None:
    """Write VGG19's weights up to relu3_1 to a file; the same weights give the same bytes.

    Args:
        weights: `torchvision` (ImageNet, fetched once into torch's hub cache), `none`, or the
            path of a .pth file with these layers or all of VGG19, under torchvision's names.
        destination: file to write; it appears when it is complete.

    Returns:
        SHA-256 of the file in hexadecimal; None when weights is `none`, and nothing is written.

    Raises:
        DownloadError: torchvision's weights cannot be fetched.
        CheckpointError: the file is missing, damaged, or holds another network.
    """
    if weights == "none":
        return None
    source = _fetch_torchvision() if weights == "torchvision" else Path(weights)
    state = _load_state(source)
    buffer = io.BytesIO()  # torch writes a file's own name into it, so never save to a name
    torch.save({key: state[key].clone() for key in _wanted_keys()}, buffer)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(destination) as scratch:
        scratch.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load_vgg19_features(path: Path) -> nn.Sequential:
    """VGG19 up to relu3_1, frozen and in evaluation mode, from a file that `place_vgg19` wrote.

    Maps frames (batch, 3, height, width), normalized as ImageNet, to features
    (batch, 256, height / 4, width / 4).

    Raises:
        CheckpointError: the file is missing, damaged, or holds another network.
    """
    state = _load_state(path)
    features = _empty_vgg19().features[:_NUM_LAYERS]
    assert isinstance(features, nn.Sequential)
    features.load_state_dict(
        {key.removeprefix("features."): state[key] for key in _wanted_keys()}, assign=True
    )
    return features.eval().requires_grad_(False)


def _wanted_keys() -> tuple[str, ...]:
    return tuple(f"features.{i}.{kind}" for i in _CONVOLUTIONS for kind in ("weight", "bias"))


def _empty_vgg19() -> Any:
    """torchvision's VGG19 without memory for its weights."""
    from torchvision.models import vgg19

    with torch.device("meta"):
        return vgg19(weights=None, init_weights=False)


def _load_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such VGG19 weights; correct loss.vgg_weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged pickle can raise anything
        # Torch's own words advise to load it without protection.
        raise CheckpointError(
            f"{path}: not readable as VGG19 weights (a file that holds code is never loaded); "
            "replace the file"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: no state dict of tensors; save model.state_dict()")
    # VGG16 has the same shapes up to relu3_1: what lies beyond tells the two apart.
    known = _empty_vgg19().state_dict()
    wrong = [key for key in _wanted_keys() if key not in state]
    for key, value in state.items():
        if key not in known or (value.shape, value.dtype) != (known[key].shape, torch.float32):
            wrong.append(key)
    if wrong:
        raise CheckpointError(
            f"{path}: not torchvision's VGG19 in float32 ({len(wrong)} keys missing, unknown or of "
            f"another shape, first {wrong[0]!r}); give its state dict, whole or up to relu3_1"
        )
    return state


def _fetch_torchvision() -> Path:
    """torchvision's ImageNet weights in torch's hub cache, with their checksum verified."""
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    digest_start = cached.stem.rpartition("-")[2]
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            urlopen(Request(url, method="HEAD"), timeout=_CONNECT_LIMIT_S).close()
            with _stall_limit():
                torch.hub.download_url_to_file(url, str(cached), hash_prefix=digest_start)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise DownloadError(
                f"{url} cannot be fetched: {error}; check the network and run again, {_OTHERWISE}"
            ) from None
    digest = sha256_of(cached)
    if not digest.startswith(digest_start):
        raise CheckpointError(
            f"{cached}: SHA-256 starts with {digest[:8]} instead of {digest_start}; "
            "delete the file to fetch it again"
        )
    return cached


@contextmanager
def _stall_limit() -> Iterator[None]:
    """Limit the silence of every socket opened inside: torch.hub sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_LIMIT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
