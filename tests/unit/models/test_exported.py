"""The graph that ships beside the network it was made from."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray

from deepstab.data.flow import with_flow
from deepstab.errors import CheckpointError
from deepstab.image import REFERENCE_WIDTH_PX, Image
from deepstab.models import exported, shipping
from deepstab.models.checkpoints import Checkpoint, load_weights
from deepstab.models.export import export_graph
from deepstab.models.network import MotionNetwork

ASPECT = 16 / 9
# Isotropic units as px at width 640.
UNIT_PX = REFERENCE_WIDTH_PX / ASPECT**0.5 / 2


@pytest.fixture(scope="module")
def network() -> MotionNetwork:
    return exported.load_shipped()


def shaken_photo(network: MotionNetwork, num_frames: int) -> tuple[Image, NDArray[np.float32]]:
    """Frames that wander over a photograph with flat and textured parts, and their flow."""
    photo = skimage.data.astronaut()
    width, height = network.params.flow.width, network.params.flow.height
    corners = np.random.default_rng(0).integers(100, 112, (num_frames, 2))
    frames = [photo[y : y + 2 * height : 2, x : x + 2 * width : 2].copy() for x, y in corners]
    flow = [field for _, field in with_flow(iter(frames), network.params.flow)]
    return np.stack(frames), np.stack(flow)


def test_the_graph_is_of_the_weights_that_ship(network: MotionNetwork) -> None:
    weights = load_weights(None)
    assert network.params == weights.params
    assert network.origin == weights.network().origin


@pytest.mark.parametrize("num_frames", [1, 2, 33])
def test_it_says_what_torch_says(network: MotionNetwork, num_frames: int) -> None:
    frames, flow = shaken_photo(network, num_frames)
    motion, wobble = network.see_motion(frames, flow, ASPECT)
    by_torch = load_weights(None).network().see_motion(frames, flow, ASPECT)
    assert motion.shape == (num_frames, 4)
    assert wobble.shape == (num_frames, 6, 2)
    if num_frames > 2:
        assert np.abs(motion[1:]).max() * UNIT_PX > 1
    np.testing.assert_allclose(motion * UNIT_PX, by_torch[0] * UNIT_PX, atol=2e-4)
    np.testing.assert_allclose(wobble * UNIT_PX, by_torch[1] * UNIT_PX, atol=2e-3)


def test_any_generator_can_be_exported(untrained: Checkpoint, tmp_path: Path) -> None:
    short = {"reweighting_steps": 2, "learned_steps": 1}
    model = untrained.params.model.model_copy(update=short)
    params = untrained.params.model_copy(update={"model": model})
    checkpoint = dataclasses.replace(untrained, params=params)
    export_graph(checkpoint, tmp_path / "g.onnx")
    network = checkpoint.network()
    frames, flow = shaken_photo(network, 5)
    found = exported.run_graph(tmp_path / "g.onnx")(frames, flow, ASPECT)
    for one, other in zip(found, network.see_motion(frames, flow, ASPECT), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    # No path of the machine it was made on.
    assert str(Path(exported.__file__).parent).encode() not in (tmp_path / "g.onnx").read_bytes()


def test_a_damaged_graph_is_never_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = tmp_path / "g.onnx"
    graph.write_bytes(shipping.GRAPH.read_bytes())
    monkeypatch.setattr(exported, "GRAPH", graph)
    with pytest.raises(CheckpointError, match="missing"):
        exported.load_shipped()
    shipping.write_checksum(graph)
    assert exported.load_shipped().params
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        exported.load_shipped()


def test_nobody_is_told_that_it_runs(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from deepstab.models.exported import load_shipped\n"
        "network = load_shipped()\n"
        "shape = 2, network.params.flow.height, network.params.flow.width\n"
        "assert 'openvino' not in sys.modules, 'it waits for the first frames'\n"
        "flow = np.zeros((*shape, 2), np.float32)\n"
        "network.see_motion(np.zeros((*shape, 3), np.uint8), flow, 1.5)\n"
        "assert 'openvino' in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.iterdir())
