"""The shipped generator as a graph that runs without torch.

The graph is in ONNX's format, made from the weights that lie beside it, and run by OpenVINO.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepstab.config import parse_network_params
from deepstab.image import Image
from deepstab.models.network import FRAMES_AT_ONCE, Floats32, MotionNetwork, SeeMotion
from deepstab.models.shipping import GRAPH, WEIGHTS, read_shipped, verify

if TYPE_CHECKING:
    from openvino import CompiledModel

# Half precision, where a processor has it, is not equal to torch. Other threads decode meanwhile.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


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

    Compiled for `FRAMES_AT_ONCE` it takes two thirds of the time it takes for any number of frames.
    """

    @cache
    def compiled(shapes: tuple[tuple[int, ...], ...] | None) -> CompiledModel:
        # Not before the first frames: others are decoded meanwhile. OpenVINO tells its maker of
        # every import, but where this module of its is not there.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        core = openvino.Core()
        graph = core.read_model(path)
        if shapes is not None:
            graph.reshape(dict(enumerate(shapes)))
        return core.compile_model(graph, "CPU", _SETTINGS)

    def see_motion(frames: Image, flow: Floats32, aspect: float) -> tuple[Floats32, Floats32]:
        given: list[NDArray[Any]] = [frames, flow, np.array([aspect], np.float32)]
        shapes = tuple(array.shape for array in given) if len(frames) == FRAMES_AT_ONCE else None
        found = compiled(shapes)(given)
        return found[0], found[1]

    return see_motion
