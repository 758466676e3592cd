"""The converter plug-in "onnx": files for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version

import onnx
from onnx import numpy_helper

from nestedge.convert import (
    BuildSpec,
    Converted,
    LevelProgram,
    check_half,
    check_half_layers,
    check_spec,
)
from nestedge.explanation import FoundConstant, constants_of, explain
from nestedge.grids import Grid
from nestedge.plugins import TensorInfo
from nestedge_onnx.dynamic import dynamic_steps, to_dynamic
from nestedge_onnx.exporter import ONNXRUNTIME_OPSET, export_model
from nestedge_onnx.grids import on_family_grids
from nestedge_onnx.half import to_half, with_half_weights
from nestedge_onnx.quantization import quantize, steps_of


class OnnxConverter:
    """The converter plug-in "onnx"."""

    name = "onnx"
    runtime = "onnx"
    checked_by = "onnx"
    suffix = ".onnx"
    precisions = ("fp32", "fp16", "int8", "int8-dynamic")
    mixed = ("int8",)
    packages = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")

    def export(self, level: LevelProgram, *, batch: int = 1) -> OnnxExported:
        """The level as an ONNX graph of a fixed batch size.

        Raises:
            NestedgeError: torch.onnx cannot express the network.
        """
        model = export_model(level, batch=batch, opset=ONNXRUNTIME_OPSET)
        return OnnxExported(self, level, model)


class OnnxExported:
    """A level as an ONNX graph, from which the files of all precisions are made."""

    def __init__(
        self, converter: OnnxConverter, level: LevelProgram, model: onnx.ModelProto
    ) -> None:
        self._converter = converter
        self._level = level
        self._model = model

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as an ONNX file.

        Raises:
            UsageError: the precision is not one it has, int8 lacks calibration data, or a layer
                that is to stay in half precision cannot.
            NestedgeError: onnxruntime's tools cannot make the precision of the network, or
                half precision cannot hold one of its weights.
        """
        check_spec(self._converter, spec)
        check_half_layers(self._level, spec)
        if spec.precision == "fp16":
            check_half(self._level)
        left = left_layers(self._model, self._level, spec)
        model = _in_precision(self._model, spec, left)
        grids = on_family_grids(model, self._level, spec, single=self._model)
        model = self._stored(model, left)
        made = converted(model, self._level, self._converter.packages, grids=grids)
        return replace(made, half_layers=spec.half_layers)

    def _stored(self, model: onnx.ModelProto, left: Collection[str]) -> onnx.ModelProto:
        """The model with the weights of layers that are left in half precision as the file has."""
        return with_half_weights(model, left)


def left_layers(model: onnx.ModelProto, level: LevelProgram, spec: BuildSpec) -> frozenset[str]:
    """The names of the weights in a model whose layers are not to be quantised.

    Args:
        model: in single precision.
        level: what it was made from.
        spec: which layers.
    """
    if not spec.half_layers:
        return frozenset()
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    found = [FoundConstant(name, 0, value) for name, value in values.items()]
    return frozenset().union(*constants_of(spec.half_layers, found, level).values())


def converted(
    model: onnx.ModelProto,
    level: LevelProgram,
    packages: Sequence[str],
    *,
    grids: Iterable[Grid] = (),
) -> Converted:
    """A finished model as what a converter gives.

    Args:
        model: in whatever precision, stripped.
        level: what it was made from.
        packages: the distributions that made it.
        grids: of the weights that have the same whole numbers in all levels.
    """
    content = model.SerializeToString(deterministic=True)
    return Converted(
        model=content,
        inputs=tuple(_info(value) for value in model.graph.input),
        outputs=tuple(_info(value) for value in model.graph.output),
        constants=explain(list(_constants(model, content)), level, grids=grids),
        producer={name: version(name) for name in packages},
    )


def _in_precision(
    model: onnx.ModelProto, spec: BuildSpec, left: Collection[str]
) -> onnx.ModelProto:
    if spec.precision == "int8":
        return quantize(model, spec.calibration or {}, left=left)
    if spec.precision == "int8-dynamic":
        return to_dynamic(model)
    return to_half(model) if spec.precision == "fp16" else model


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return TensorInfo(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)


def _constants(model: onnx.ModelProto, content: bytes) -> Iterator[FoundConstant]:
    """Every initialiser with the place of its bytes: they lie in the file in the graph's order."""
    steps = {**steps_of(model.graph), **dynamic_steps(model.graph)}
    end = 0
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        name = content.find(initializer.name.encode(), end)
        offset = content.find(array.tobytes(), end)
        assert min(name, offset) >= 0, "an initialiser is in the file it was serialised to"
        end = offset + array.nbytes
        yield FoundConstant(initializer.name, offset, array, steps.get(initializer.name))
