"""The shipped generator as a graph that runs without torch.

The graph is in ONNX's format, made from the weights that lie beside it, and run by OpenVINO.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from deepstab.config import parse_network_params
from deepstab.image import Image
from deepstab.models.network import Floats32, MotionNetwork, SeeMotion
from deepstab.models.shipping import GRAPH, WEIGHTS, read_shipped, verify


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
    """A graph that `deepstab.models.export` wrote, ready to run."""
    # OpenVINO tells its maker of every import, but where this module of its is not there.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    # Half precision, where a processor has it, is not equal to torch.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def see_motion(frames: Image, flow: Floats32, aspect: float) -> tuple[Floats32, Floats32]:
        found = compiled([frames, flow, np.array([aspect], np.float32)])
        return found[0], found[1]

    return see_motion
