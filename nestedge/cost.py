"""What a program costs: parameters, multiply-accumulate operations, and memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Program, Ref, Weight
from nestedge.program.shapes import trace_shapes

Shape = tuple[int, ...]


def count_parameters(program: Program) -> int:
    """How many weights and biases a program reads."""
    used = program.used_tensors()
    specs = (spec for name, spec in program.tensors.items() if name in used)
    return sum(math.prod(spec.shape) for spec in specs if spec.role == "parameter")


def count_macs(program: Program, *, batch: int = 1) -> int:
    """How many multiply-accumulates one run takes: those of convolutions and matrix products."""
    values = trace_shapes(program, batch=batch)

    def shape_of(leaf: Ref | Weight) -> Any:
        if isinstance(leaf, Weight):
            return program.tensors[leaf.name].shape
        value = values[leaf.name]
        return tuple(value.shape) if hasattr(value, "shape") else value

    total = 0
    for node in program.nodes:
        name = node.op.split(".")[1]
        kind = "conv" if name.startswith("conv") and "transpose" not in name else name
        if kind in _MACS:
            total += _MACS[kind](named_arguments(node, shape_of), shape_of(Ref(node.output)))
    return total


def peak_activation_bytes(program: Program, *, batch: int = 1, bytes_per_float: int = 4) -> int:
    """The most bytes that inputs and results take at once when nodes run one after another.

    A value lives from the node that gives it to the last that reads it; an input from the start,
    and an output to the end. Weights are not in it. It is an estimate of what a runtime takes,
    which may order nodes otherwise, fuse them, write results over operands and make no copy for a
    view (each counts as a value of its own here), or need buffers for its own work on top.

    Args:
        program: what runs.
        batch: the batch size of its inputs.
        bytes_per_float: of every number of floating point; others have their own size.
    """
    values = trace_shapes(program, batch=batch)
    sizes = {name: _size_bytes(value, bytes_per_float) for name, value in values.items()}
    alive = peak = sum(sizes[spec.name] for spec in program.inputs)
    for node, freed in zip(program.nodes, program.last_uses, strict=True):
        alive += sum(sizes[name] for name in node.outputs if name is not None)
        peak = max(peak, alive)
        alive -= sum(sizes[name] for name in freed)
    return peak


def _size_bytes(value: Any, bytes_per_float: int) -> int:
    # A size that a network computes with is a Python number, which takes no memory of a device.
    if not isinstance(value, torch.Tensor):
        return 0
    each = bytes_per_float if value.is_floating_point() else value.element_size()
    return value.numel() * each


def _convolution(a: dict[str, Any], out: Shape) -> int:
    return int(math.prod((*out, *a["weight"][1:])))


def _transposed_convolution(a: dict[str, Any], _: Shape) -> int:
    return int(math.prod((*a["input"], *a["weight"][1:])))


def _linear(a: dict[str, Any], out: Shape) -> int:
    return int(math.prod((*out, a["weight"][-1])))


def _product(operand: str) -> Callable[[dict[str, Any], Shape], int]:
    return lambda a, out: int(math.prod((*out, a[operand][-1])))


def _attention(a: dict[str, Any], _: Shape) -> int:
    query, key, value = a["query"], a["key"], a["value"]
    return int(math.prod((*query[:-1], key[-2], query[-1] + value[-1])))


_MACS: dict[str, Callable[[dict[str, Any], Shape], int]] = {
    "conv": _convolution,
    "conv_transpose1d": _transposed_convolution,
    "conv_transpose2d": _transposed_convolution,
    "conv_transpose3d": _transposed_convolution,
    "linear": _linear,
    "matmul": _product("self"),
    "mm": _product("self"),
    "bmm": _product("self"),
    "addmm": _product("mat1"),
    "baddbmm": _product("batch1"),
    "scaled_dot_product_attention": _attention,
}
