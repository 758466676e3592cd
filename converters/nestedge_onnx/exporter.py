"""A level as an ONNX graph in single precision, by torch.onnx."""

from __future__ import annotations

import onnx
import torch
from onnx import numpy_helper

from nestedge.convert import LevelProgram, check_size
from nestedge.diagnosis import failed
from nestedge.program.emit import FlatModule
from nestedge_onnx.quiet import quiet

OPSET = 18
"""What other tools translate further: it is lowered for TensorRT, and onnx2tf reads it."""

ONNXRUNTIME_OPSET = 20
"""What onnxruntime 1.17 and later load, JetPack 5's 1.19 among them.

In a model of opset 18, where Relu is a function, it takes that apart in half precision and fuses
nothing with it: 1.2 to 1.6 times as slow.
"""


def export_model(level: LevelProgram, *, batch: int = 1, opset: int = OPSET) -> onnx.ModelProto:
    """A level as an ONNX model whose inputs and outputs are named as the network's.

    Args:
        level: its batch norms are folded where they can be.
        batch: the batch size that the model is fixed to.
        opset: the version of the standard's operators.

    Raises:
        ConversionError: torch.onnx cannot express the network, or its file would be too large.
    """
    check_size(level, "an ONNX file")
    program = level.program
    examples = [torch.zeros(s.shape_at(batch), dtype=s.dtype) for s in program.inputs]
    module = FlatModule(program, level.tensors).eval()
    try:
        with quiet():
            exported = torch.onnx.export(
                module,
                tuple(examples),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=[s.name for s in program.inputs],
                output_names=[name for name, _ in program.outputs],
                verbose=False,
            )
    except Exception as error:
        # torch.onnx raises many types, all about what it cannot express.
        task = "torch.onnx cannot export the level"
        raise failed(task, error, program, otherwise="converter-failed") from error
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    strip(model)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Removes what tools note of this machine and of themselves: paths, stack traces, versions.

    Constants are written as plain bytes, which some tools do not do.
    """
    graph = model.graph
    model.producer_name = "nestedge"
    model.ClearField("producer_version")
    items = [*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]
    for item in (model, graph, *items):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for constant in graph.initializer:
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant), constant.name))
    # Shapes of values in between are inferred again by whoever loads the file.
    del graph.value_info[:]
