"""From a model of one batch size to one that takes batches of any size.

torch.export fixes the batch that a network is exported with, and constants have it then: the shapes
that values are reshaped to, above all. Here these are made free again, one operator after another,
by what shape inference says of a batch twice as large. Whatever cannot be made free is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from nestedge.errors import ConversionError
from nestedge.expressions import Array
from nestedge.reasons import conversion_error
from nestedge_onnx.shapes import Shape, shape_of, shapes_of
from nestedge_tensorrt.lowering import integer

BATCH = "batch"
"""Name of the first dimension of what a model takes and gives."""

_RECURRENT = ("GRU", "LSTM", "RNN")
_FIRST_STATE = 5
"""Which input that is, behind the lengths of sequences."""


def with_free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of a fixed batch size, for batches of any size.

    That the samples of a batch are computed apart, as a batch of one is, is for the caller to check
    by running it: shapes do not tell.

    Raises:
        ConversionError: an operator is fixed to the batch size; the message names it.
    """
    free = onnx.ModelProto()
    free.CopyFrom(model)
    graph = free.graph
    del graph.node[:]
    values = _Values(model)
    for shipped in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(shipped)
        graph.node.extend(_free_constants(node, values))
        graph.node.append(node)
        values.follow(node, free)
    graph.initializer.extend(values.added)
    for value in graph.output:
        if values.axis_of(value.name) != 0 or values.inside.get(value.name, 1) != 1:
            said = f"output {value.name!r} does not have the batch as its first dimension"
            raise conversion_error("fixed-batch", said)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    read = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return free


@dataclass
class _Values:
    """What is known of the values of a model, at its own batch size and at twice that.

    Attributes:
        model: as it was.
        fixed: shapes at its own batch size.
        doubled: types at twice that.
        constants: by name.
        inside: how many rows of a sample stand before the batch in the dimension that it makes
            larger, where they are not 1: as where (rows, batch) is joined to (rows * batch).
        added: constants that the model did not have.
    """

    model: onnx.ModelProto
    fixed: dict[str, Shape] = field(init=False)
    doubled: dict[str, onnx.TypeProto] = field(init=False)
    constants: dict[str, onnx.TensorProto] = field(init=False)
    inside: dict[str, int] = field(default_factory=dict)
    added: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.fixed = shapes_of(self.model, data_prop=True)
        self.doubled, self.constants = {}, {}
        for value in graph.input:
            kind = onnx.TypeProto()
            kind.CopyFrom(value.type)
            kind.tensor_type.shape.dim[0].dim_value *= 2
            self.doubled[value.name] = kind
        for item in graph.initializer:
            self._know(item)

    def axis_of(self, name: str) -> int | None:
        """The one dimension that a larger batch makes larger; None where none is.

        Raises:
            ValueError: it is not one, twice as large as before.
        """
        if name not in self.doubled:
            return None
        pairs = list(zip(self.fixed[name], shape_of(self.doubled[name]), strict=True))
        found = [index for index, (size, other) in enumerate(pairs) if size != other]
        if not found:
            return None
        if len(found) > 1 or pairs[found[0]][1] != 2 * pairs[found[0]][0]:
            raise ValueError(f"{name!r} is not twice as large for twice the batch")
        return found[0]

    def constant(self, name: str) -> Array | None:
        """The value of a constant; None for what is computed."""
        item = self.constants.get(name)
        return None if item is None else numpy_helper.to_array(item)

    def add(self, name: str, array: Array) -> str:
        """Adds a constant; its name."""
        item = numpy_helper.from_array(array, name)
        self._know(item)
        self.added.append(item)
        return name

    def widen(self, name: str, wide: str) -> None:
        """Notes that a value has become another one, which is as large as the batch."""
        kind = onnx.TypeProto()
        kind.CopyFrom(self.doubled[name])
        kind.tensor_type.shape.dim[0].dim_value *= 2
        self.fixed[wide], self.doubled[wide] = self.fixed[name], kind

    def follow(self, node: onnx.NodeProto, model: onnx.ModelProto) -> None:
        """Infers what a node gives for twice the batch.

        Raises:
            ConversionError: it is fixed to the batch size, or mixes samples.
        """
        (opset,) = model.opset_import
        given = {name: self.doubled[name] for name in node.input if name in self.doubled}
        data = {name: self.constants[name] for name in node.input if name in self.constants}
        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(node.op_type, opset.version, ""),
                node,
                given,
                data,
                opset_imports=[opset],
                ir_version=model.ir_version,
            )
        except shape_inference.InferenceError as error:
            reason = "it meets a constant of that size"
            raise _refusal(node, reason) from error
        if any(item.type == onnx.AttributeProto.GRAPH for item in node.attribute):
            raise _refusal(node, "it has a graph of its own")
        self.doubled |= found
        self._check(node)

    def _check(self, node: onnx.NodeProto) -> None:
        reads = any(self.axis_of(name) is not None for name in node.input)
        for name in filter(None, node.output):
            if name not in self.doubled or not _is_known(self.doubled[name]):
                raise _refusal(node, "the size of what it gives is not known")
            try:
                axis = self.axis_of(name)
            except ValueError as error:
                raise _refusal(node, "what it gives does not grow with the batch alone") from error
            if reads and axis is None:
                raise _refusal(node, "it gives as much for a larger batch")
            if node.op_type != "Reshape":
                self.inside[name] = max(self.inside.get(read, 1) for read in ("", *node.input))

    def _know(self, item: onnx.TensorProto) -> None:
        self.constants[item.name] = item
        self.fixed[item.name] = tuple(item.dims)
        self.doubled[item.name] = helper.make_tensor_type_proto(item.data_type, item.dims)


def _free_constants(node: onnx.NodeProto, values: _Values) -> list[onnx.NodeProto]:
    """Replaces what a node reads that has the batch size in it; the nodes that it takes."""
    if node.op_type == "Concat":
        return _free_concat(node, values)
    axis = values.axis_of(node.input[0]) if node.input else None
    if axis is None:
        return []
    if node.op_type == "Reshape":
        _free_reshape(node, values, axis)
    elif node.op_type in _RECURRENT:
        _free_recurrent(node, values)
    elif node.op_type == "Resize" and len(node.input) > len(("x", "roi", "scales")):
        _free_resize(node, values)
    return []


def _free_reshape(node: onnx.NodeProto, values: _Values, axis: int) -> None:
    if values.constant(node.input[1]) is None:
        raise _refusal(node, "its shape is computed")
    old, new = values.fixed[node.input[0]], list(values.fixed[node.output[0]])
    before = math.prod(old[:axis]) * values.inside.get(node.input[0], 1)
    # The dimensions with as many numbers in front of them as the batch has.
    fits = [index for index in range(len(new)) if math.prod(new[:index]) == before]
    if not fits:
        raise _refusal(node, "it takes apart what stands before the batch")
    place = fits[0]
    behind = tuple(new[place:])
    if place > 0 and new[place] != 1 and (len(behind) == 1 or behind == old[axis + 1 :]):
        # Features, and what stays as it is, are no place for the batch: it goes to the rows before.
        place -= 1
    values.inside[node.output[0]] = before // math.prod(new[:place])
    new[place] = -1
    node.input[1] = values.add(f"{node.output[0]}_shape", np.array(new, np.int64))


def _free_concat(node: onnx.NodeProto, values: _Values) -> list[onnx.NodeProto]:
    """Repeats what is the same for all samples, such as a class token, for each of them."""
    if integer(node, "axis", 0) == 0:
        return []
    axes = {name: values.axis_of(name) for name in node.input}
    by_sample = [name for name, axis in axes.items() if axis == 0]
    nodes: list[onnx.NodeProto] = []
    for index, name in enumerate(node.input):
        if not by_sample or axes[name] is not None or values.fixed[name][0] != 1:
            continue
        stem = f"{node.output[0]}_input{index}"
        first = values.add(f"{stem}_first", np.array([0], np.int64))
        rest = values.add(f"{stem}_rest", np.array(values.fixed[name][1:], np.int64))
        nodes += [
            helper.make_node("Shape", [by_sample[0]], [f"{stem}_sizes"], f"{stem}_sizes"),
            helper.make_node("Gather", [f"{stem}_sizes", first], [f"{stem}_batch"], axis=0),
            helper.make_node("Concat", [f"{stem}_batch", rest], [f"{stem}_shape"], axis=0),
            helper.make_node("Expand", [name, f"{stem}_shape"], [f"{stem}_wide"]),
        ]
        values.widen(name, f"{stem}_wide")
        node.input[index] = f"{stem}_wide"
    return nodes


def _free_recurrent(node: onnx.NodeProto, values: _Values) -> None:
    """Leaves out a first state of zeros, which is what there is without one."""
    for index in range(_FIRST_STATE, len(node.input)):
        state = values.constant(node.input[index])
        if state is not None and state.any():
            raise _refusal(node, f"its first state {node.input[index]!r} is a constant")
        if state is not None:
            node.input[index] = ""


def _free_resize(node: onnx.NodeProto, values: _Values) -> None:
    """Tells a resizing the ratio of sizes instead of the sizes."""
    sizes = values.fixed[node.input[0]], values.fixed[node.output[0]]
    old, new = (np.array(size, np.float64) for size in sizes)
    scales = (new / old).astype(np.float32)
    # A size is the product rounded down: a ratio such as 5/3 must not be a hair too small.
    scales = np.where(
        np.floor(old * scales) < new, np.nextafter(scales, np.float32(np.inf)), scales
    )
    del node.input[2:]
    node.input.append(values.add(f"{node.output[0]}_scales", scales))


def _refusal(node: onnx.NodeProto, reason: str) -> ConversionError:
    said = f"{node.op_type} ({node.name!r}) is fixed to the batch size: {reason}"
    return conversion_error("fixed-batch", said, operator=node.op_type)


def _is_known(kind: onnx.TypeProto) -> bool:
    shape = kind.tensor_type.shape
    return kind.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in shape.dim)
