"""Which execution provider runs which node, by the profile that onnxruntime writes of a run.

The profile has every node with its provider and the shapes of its operands. What a provider
compiles is one node in it: the nodes that are missing from it are inside. All runs are with basic
optimisation only: providers are chosen after that, and what follows renames nodes and pads shapes.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.placement import Operator, Placed, Placement
from nestedge_onnx.providers import CPU, check_provider
from nestedge_onnx.refusals import REFUSALS, first_line

Shape = tuple[int, ...]

_Level = onnxruntime.GraphOptimizationLevel
_SUFFIX = "_kernel_time"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}

# Their products depend on attributes, which a profile does not have.
_UNKNOWN = frozenset(("DeformConv", "EPContext", "Einsum", "GRU", "LSTM", "RNN"))


@dataclass(frozen=True)
class ProfiledNode:
    """A node that ran, and what ran it."""

    operator: Operator
    provider: str


def measured_placement(path: Path, *, accelerator: str, threads: int, source: str) -> Placement:
    """Where onnxruntime runs the nodes of a model file.

    Args:
        path: of the file.
        accelerator: an execution provider, as onnxruntime calls it; that of the CPU runs
            everything.
        threads: CPU threads.
        source: the framework and its version.

    Raises:
        UsageError: there is no such file.
        FormatError: onnxruntime does not accept the file.
        PlacementError: the provider cannot be started.
        NestedgeError: onnxruntime fails to run the file.
    """
    nodes = _profile(path, [CPU], level=_Level.ORT_ENABLE_BASIC, threads=threads)
    ran = nodes
    if accelerator != CPU:
        ran = _profile(path, [accelerator, CPU], level=_Level.ORT_ENABLE_BASIC, threads=threads)
    return compared(nodes, ran, accelerator=accelerator, source=source)


def compared(
    alone: Sequence[ProfiledNode],
    together: Sequence[ProfiledNode],
    *,
    accelerator: str,
    source: str,
) -> Placement:
    """A placement, from a run on the CPU alone and one on an accelerator and the CPU together.

    Args:
        alone: every node, with its MACs.
        together: the nodes that ran by themselves; the rest is in what the accelerator compiled.
        accelerator: name of the provider.
        source: the framework and its version.
    """
    providers = {node.operator.name: node.provider for node in together}
    placed = [
        Placed(op.kind, op.name, providers.get(op.name, accelerator), op.macs)
        for op in (node.operator for node in alone)
    ]
    pieces = sum(name == accelerator for name, _ in groupby(node.provider for node in together))
    return Placement(accelerator, tuple(placed), pieces, source)


def file_operators(path: Path) -> tuple[Operator, ...]:
    """The nodes of a model file, in the order in which they run on the CPU.

    Raises:
        UsageError: there is no such file.
        FormatError: onnxruntime does not accept the file.
        NestedgeError: it fails to run it.
    """
    nodes = _profile(path, [CPU], level=_Level.ORT_DISABLE_ALL, threads=1)
    return tuple(node.operator for node in nodes)


def macs_of(kind: str, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Multiply-accumulates of one run of a node, or None where its shapes do not tell.

    Args:
        kind: its operator, of ONNX or of onnxruntime.
        inputs: shapes, in its order.
        output: shape of the first.

    >>> macs_of("Conv", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 8, 8))
    27648
    >>> macs_of("Gemm", [(2, 5), (16, 5), (16,)], (2, 16))
    160
    """
    if kind in _UNKNOWN or "Attention" in kind:
        return None
    count = _MACS.get(kind)
    try:
        return 0 if count is None else count(inputs, output)
    except (IndexError, ZeroDivisionError):
        # A provider's kernel may keep its weights to itself.
        return None


def _convolution(weight: int) -> Callable[[Sequence[Shape], Shape], int]:
    # A weight has (output channels, input channels of its group, *kernel).
    return lambda inputs, output: math.prod(output) * math.prod(inputs[weight][1:])


def _transposed(inputs: Sequence[Shape], _: Shape) -> int:
    # (input channels, output channels of its group, *kernel)
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _gemm(inputs: Sequence[Shape], output: Shape) -> int:
    # However the first operand lies, its numbers each meet all columns of the result.
    return math.prod(inputs[0]) * output[-1]


def _product(inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-1]


def _fused_product(inputs: Sequence[Shape], output: Shape) -> int:
    # The first operand may lie transposed: one of its last two axes is the output's.
    rows, columns = inputs[0][-2:]
    return math.prod(output) * (rows * columns // output[-2]) if math.prod(output) else 0


_MACS: Mapping[str, Callable[[Sequence[Shape], Shape], int]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "FusedConv": _convolution(1),
    "NhwcFusedConv": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "QGemm": _gemm,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "MatMulNBits": _product,
    "MatMulIntegerToFloat": _product,
    "DynamicQuantizeMatMul": _product,
    "FusedMatMul": _fused_product,
}


def _profile(
    path: Path, providers: Sequence[str], *, level: onnxruntime.GraphOptimizationLevel, threads: int
) -> list[ProfiledNode]:
    """The nodes of a model in the order in which they ran, on inputs of zeros."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with tempfile.TemporaryDirectory(prefix="nestedge-placement-") as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.graph_optimization_level = level
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        # A kernel that has packed its weights no longer has them among its inputs.
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers), enable_fallback=0
            )
        except REFUSALS as error:
            raise FormatError(f"{path}: onnxruntime refuses it: {first_line(error)}") from error
        check_provider(session, providers[0])
        try:
            session.run(None, {node.name: _zeros(node) for node in session.get_inputs()})
        except REFUSALS as error:
            raise NestedgeError(f"{path}: running failed: {first_line(error)}") from error
        return _nodes(json.loads(Path(session.end_profiling()).read_bytes()))


def _nodes(events: Sequence[Mapping[str, Any]]) -> list[ProfiledNode]:
    """The nodes in a profile; one that ran several times, in a loop, has the MACs of all runs."""
    found: dict[str, ProfiledNode] = {}
    for event in events:
        name, arguments = event["name"], event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX):
            continue
        name, kind = name.removesuffix(_SUFFIX), arguments["op_name"]
        inputs, outputs = (_shapes(arguments[f"{side}_type_shape"]) for side in ("input", "output"))
        macs = macs_of(kind, inputs, outputs[0] if outputs else ())
        before = found[name].operator.macs if name in found else 0
        total = None if macs is None or before is None else before + macs
        found[name] = ProfiledNode(Operator(kind, name, total), arguments["provider"])
    return list(found.values())


def _shapes(operands: Sequence[Mapping[str, Sequence[int]]]) -> list[Shape]:
    """Shapes from a profile, where each stands under the name of its dtype."""
    return [tuple(shape) for operand in operands for shape in operand.values()]


def _zeros(node: onnxruntime.NodeArg) -> np.ndarray[Any, np.dtype[Any]]:
    """An input of zeros; a dimension of any size is 1."""
    dtype = _DTYPES.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
    return np.zeros([size if isinstance(size, int) else 1 for size in node.shape], dtype)
