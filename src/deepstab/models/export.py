"""Write a generator as a graph in ONNX's format, which `deepstab.models.exported` runs."""

from __future__ import annotations

from pathlib import Path

import torch

from deepstab.files import whole_or_absent
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.generator import FramesToMotion

# The shape that is traced; the number of frames stays free.
_NUM_FRAMES = 8
_MOST_FRAMES = 4096


def export_graph(checkpoint: Checkpoint, path: Path) -> None:
    """Write the graph of a generator with the motion head, float32, for frames of its own size.

    Raises:
        CheckpointError: the weights do not fit.
    """
    flow = checkpoint.params.flow
    frames = torch.zeros(_NUM_FRAMES, flow.height, flow.width, 3, dtype=torch.uint8)
    time = torch.export.Dim("time", min=1, max=_MOST_FRAMES)
    program = torch.onnx.export(
        FramesToMotion(checkpoint.build_generator()).eval(),
        (frames, torch.zeros(*frames.shape[:3], 2), torch.ones(1)),
        dynamo=True,
        verbose=False,
        input_names=["frames", "flow", "aspect"],
        output_names=["motion", "wobble"],
        dynamic_shapes=({0: time}, {0: torch.export.Dim.DYNAMIC}, None),
    )
    assert program is not None
    graph = program.model_proto
    # Where in the code each came from: half of the file, with paths of this machine.
    for node in graph.graph.node:
        node.ClearField("metadata_props")
    for value in graph.graph.value_info:
        value.ClearField("metadata_props")
    with whole_or_absent(path) as partial:
        partial.write_bytes(graph.SerializeToString(deterministic=True))
