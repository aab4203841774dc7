"""The shipped generator as a graph that runs without torch.

The graph is in ONNX's format, made from the weights that lie beside it, and run by OpenVINO.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepstab.config import parse_network_params
from deepstab.image import Image
from deepstab.models.network import Floats32, MotionNetwork, SeeMotion
from deepstab.models.shipping import GRAPH, WEIGHTS, read_shipped, verify

# Half precision, where a processor has it, is not equal to torch. Other threads decode meanwhile.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
_MOST_COMPILED = 2


def load_shipped() -> MotionNetwork:
    """The weights that ship, their checksums verified.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    about, origin = read_shipped()
    verify(GRAPH)
    return MotionNetwork(
        params=parse_network_params(about["params"], origin=str(WEIGHTS)),
        origin=origin,
        see_motion=run_graph(GRAPH),
    )


def run_graph(path: Path) -> SeeMotion:
    """A graph that `deepstab.models.export` wrote, ready to run in one thread.

    It is compiled for the number of frames when it first sees as many, and half as fast again as
    one for any number.
    """
    # OpenVINO tells its maker of every import, but where this module of its is not there.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()

    @lru_cache(_MOST_COMPILED)
    def compiled(*shapes: tuple[int, ...]) -> openvino.CompiledModel:
        graph = core.read_model(path)
        graph.reshape(dict(enumerate(shapes)))
        return core.compile_model(graph, "CPU", _SETTINGS)

    def see_motion(frames: Image, flow: Floats32, aspect: float) -> tuple[Floats32, Floats32]:
        given: list[NDArray[Any]] = [frames, flow, np.array([aspect], np.float32)]
        found = compiled(*(array.shape for array in given))(given)
        return found[0], found[1]

    return see_motion
