"""A level as an ExecuTorch program for XNNPACK, in single precision and in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx, nn
from torch.export import ExportedProgram, export

from nestedge.convert import LevelProgram, reason_of, tensor_of
from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge.program.emit import FlatModule
from nestedge.redirection import silenced
from nestedge_executorch.signature import METHOD

with silenced():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
        XnnpackPartitioner,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # pyright: ignore[reportMissingImports]
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import (  # pyright: ignore[reportMissingImports]
        to_edge_transform_and_lower,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def export_level(level: LevelProgram, *, batch: int) -> ExportedProgram:
    """A level as torch.export has it, of a fixed batch size, its outputs in order.

    Raises:
        NestedgeError: torch.export cannot express the network.
    """
    inputs = tuple(torch.zeros(s.shape_at(batch), dtype=s.dtype) for s in level.program.inputs)
    return _export(FlatModule(level.program, level.tensors).eval(), inputs)


def quantize(
    program: ExportedProgram, level: LevelProgram, calibration: Mapping[str, Array]
) -> ExportedProgram:
    """The program with 8-bit layers; inputs and outputs stay as they are.

    Weights get a scale for each output channel and zero points of 0, activations the range that
    they have in the calibration cases. What XNNPACK has no 8-bit form of keeps single precision.

    Args:
        program: in single precision.
        level: that it was made of.
        calibration: by input, of shape (cases, *shape of the input).

    Raises:
        NestedgeError: the quantiser cannot do it, or there is nothing in it that it can quantise.
    """
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    columns = [calibration[spec.name] for spec in level.program.inputs]
    try:
        with silenced(), torch.no_grad():
            prepared = prepare_pt2e(program.module(), quantizer)
            for case in zip(*columns, strict=False):
                prepared(*(tensor_of(array) for array in case))
            quantized = convert_pt2e(prepared)
    except Exception as error:
        # The quantiser raises many types, all about what it cannot quantise.
        raise NestedgeError(f"torchao cannot quantise to int8: {reason_of(error)}") from error
    if not any("quantize_per" in str(node.target) for node in _nodes(quantized)):
        raise NestedgeError(
            "torchao cannot quantise to int8: nothing in it can be quantised; build fp32"
        )
    inputs, _ = program.example_inputs or ((), {})
    return _export(quantized, inputs)


def lower(program: ExportedProgram, signature: str) -> bytes:
    """A program as the content of a .pte file, with all that XNNPACK can compute given to it.

    Args:
        program: in whatever precision.
        signature: that a method of the file gives.

    Raises:
        NestedgeError: ExecuTorch has no operator that the network needs.
    """
    try:
        with silenced():
            edge = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods={METHOD: signature}
            )
            return bytes(edge.to_executorch().buffer)
    except Exception as error:
        # ExecuTorch raises many types, all about what it cannot express.
        raise NestedgeError(f"ExecuTorch cannot lower the level: {reason_of(error)}") from error


def _export(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> ExportedProgram:
    try:
        with silenced():
            return export(module, inputs)
    except Exception as error:
        # torch.export raises many types, all about what it cannot express.
        raise NestedgeError(f"torch.export cannot export the level: {reason_of(error)}") from error


def _nodes(module: nn.Module) -> list[fx.Node]:
    return list(module.graph.nodes) if isinstance(module, fx.GraphModule) else []
