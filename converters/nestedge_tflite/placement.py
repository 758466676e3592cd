"""Which operators XNNPACK runs, asked of the interpreter itself.

The interpreter lists the operators of the file and, once a delegate is applied, a node for each
piece that it took, with the tensors that go in and come out. The operators between these are in the
piece. The calls that list them are private in name only: TensorFlow's own tools use them, and they
are the same in tflite-runtime 2.14 and ai-edge-litert 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nestedge.errors import FormatError, UsageError
from nestedge.placement import Operator, Placed, Placement
from nestedge_tflite.session import open_interpreter

ACCELERATOR = "XNNPACK"
PROCESSOR = "CPU"
"""The interpreter's own kernels, one operator at a time, on one thread or several."""

Shape = tuple[int, ...]

# Recurrent operators run their products once for each step: their shapes alone do not tell.
_UNKNOWN = frozenset(
    (
        *("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "SVDF", "RNN"),
        *("UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "WHILE", "IF"),
    )
)


@dataclass(frozen=True)
class _Node:
    """A node of the interpreter: its kind and the indices of its tensors."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def is_delegate(self) -> bool:
        """Whether it stands for what a delegate took."""
        return self.kind == "DELEGATE"


def measured_placement(
    make: Callable[..., Any],
    path: Path,
    *,
    accelerator: str | None,
    threads: int,
    source: str,
) -> Placement:
    """Where an interpreter runs the operators of a model file.

    Args:
        make: the class of the interpreter.
        path: of the file.
        accelerator: "XNNPACK", or None for it: what the interpreters in these packages have.
        threads: CPU threads.
        source: the framework and its version.

    Raises:
        UsageError: there is no such file, or another accelerator is asked for.
        FormatError: the interpreter does not accept the file.
    """
    if accelerator not in (None, ACCELERATOR):
        raise UsageError(
            f"{source} has the accelerator {ACCELERATOR!r} only; asked for {accelerator!r}: run "
            "the model where that is, and give its log by --log"
        )
    interpreter = _opened(make, path, threads=threads, source=source)
    nodes = _nodes(interpreter)
    own = [node for node in nodes if not node.is_delegate]
    pieces = [node for node in nodes if node.is_delegate]
    taken = {index for piece in pieces for index in _inside(piece, own)}
    operators = _operators(interpreter, own)
    placed = [
        Placed(op.kind, op.name, ACCELERATOR if index in taken else PROCESSOR, op.macs)
        for index, op in enumerate(operators)
    ]
    return Placement(ACCELERATOR, tuple(placed), len(pieces), source)


def file_operators(make: Callable[..., Any], path: Path, *, source: str) -> tuple[Operator, ...]:
    """The operators of a model file, in its order.

    Raises:
        UsageError: there is no such file.
        FormatError: the interpreter does not accept the file.
    """
    interpreter = _opened(make, path, threads=1, source=source)
    return _operators(interpreter, [node for node in _nodes(interpreter) if not node.is_delegate])


def macs_of(kind: str, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Multiply-accumulates of one run of an operator, or None where its shapes do not tell.

    Args:
        kind: its name in the schema.
        inputs: shapes, in its order; () where one is left out.
        output: shape of the first.

    >>> macs_of("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3)], (1, 8, 8, 16))
    27648
    """
    if kind in _UNKNOWN:
        return None
    count = _MACS.get(kind)
    return 0 if count is None else count(inputs, output)


def _convolution(inputs: Sequence[Shape], output: Shape) -> int:
    # A weight has (output channels, height, width, input channels of its group).
    return math.prod(output) * math.prod(inputs[1][1:])


def _depthwise(inputs: Sequence[Shape], output: Shape) -> int:
    # (1, height, width, output channels)
    return math.prod(output) * math.prod(inputs[1][1:3])


def _transposed(inputs: Sequence[Shape], _: Shape) -> int:
    # The shape of the output comes first, then the weight, then the data.
    channels, height, width, _inputs = inputs[1]
    return math.prod(inputs[2]) * channels * height * width


def _volume(inputs: Sequence[Shape], output: Shape) -> int:
    # (depth, height, width, input channels, output channels)
    return math.prod(output) * math.prod(inputs[1][:4])


def _connected(inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[1][-1]


def _product(inputs: Sequence[Shape], output: Shape) -> int:
    # Either operand may lie transposed: of the first one's two axes, one is the output's.
    rows, columns = inputs[0][-2:]
    return math.prod(output) * (rows * columns // output[-2]) if math.prod(output) else 0


_MACS: Mapping[str, Callable[[Sequence[Shape], Shape], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D": _volume,
    "FULLY_CONNECTED": _connected,
    "BATCH_MATMUL": _product,
}


def _opened(make: Callable[..., Any], path: Path, *, threads: int, source: str) -> Any:
    interpreter = open_interpreter(make, path, threads=threads, framework=source)
    signatures = sorted(interpreter.get_signature_list())
    if len(signatures) > 1:
        # The interpreter lists the operators of the first graph only.
        raise FormatError(
            f"{path}: expected one signature, found {signatures}: place each level by its own file"
        )
    return interpreter


def _nodes(interpreter: Any) -> list[_Node]:
    return [
        _Node(
            detail["op_name"],
            tuple(int(index) for index in detail["inputs"]),
            tuple(int(index) for index in detail["outputs"]),
        )
        for detail in interpreter._get_ops_details()
    ]


def _inside(piece: _Node, nodes: Sequence[_Node]) -> set[int]:
    """The indices of the operators in a piece: from its outputs back to its inputs."""
    makers = {tensor: index for index, node in enumerate(nodes) for tensor in node.outputs}
    found: set[int] = set()
    wanted = [tensor for tensor in piece.outputs if tensor in makers]
    while wanted:
        index = makers[wanted.pop()]
        if index not in found:
            found.add(index)
            inputs = set(nodes[index].inputs) - set(piece.inputs)
            wanted += [tensor for tensor in inputs if tensor in makers]
    return found


def _operators(interpreter: Any, nodes: Sequence[_Node]) -> tuple[Operator, ...]:
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}

    def shape(index: int) -> Shape:
        return tuple(int(size) for size in details[index]["shape"]) if index in details else ()

    found = []
    for node in nodes:
        output = node.outputs[0] if node.outputs else -1
        macs = macs_of(node.kind, [shape(index) for index in node.inputs], shape(output))
        found.append(Operator(node.kind, str(details.get(output, {}).get("name", "")), macs))
    return tuple(found)
