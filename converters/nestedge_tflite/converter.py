"""TFLite files by litert-torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from nestedge.affine import fold_affine
from nestedge.convert import BuildSpec, Converted, FoundConstant, LevelProgram, explain, reason_of
from nestedge.errors import NestedgeError, UsageError
from nestedge.folding import lower_batch_norms
from nestedge.plugins import TensorInfo
from nestedge.program.emit import FlatModule
from nestedge_tflite.quiet import silenced

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.FLOAT64: "float64",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
}


class TfliteConverter:
    """The converter plug-in "tflite"."""

    name = "tflite"
    suffix = ".tflite"
    precisions = ("fp32",)

    def convert(self, level: LevelProgram, spec: BuildSpec) -> Converted:
        """The level as a TFLite file of a fixed batch size, its signature named as the network's.

        Raises:
            UsageError: the precision is not one it has.
            NestedgeError: litert-torch cannot express the network.
        """
        if spec.precision not in self.precisions:
            raise UsageError(f"tflite: no precision {spec.precision!r}; it has {self.precisions}")
        level = fold_affine(lower_batch_norms(level))
        content = _export(level, spec)
        model = schema.Model.GetRootAs(content, 0)
        infos = {info.name: info for info in _signature(model)}
        program = level.program
        return Converted(
            model=content,
            inputs=tuple(infos[item.name] for item in program.inputs),
            outputs=tuple(infos[name] for name, _ in program.outputs),
            constants=explain(list(_constants(model)), level),
            producer={"torch": torch.__version__, "litert-torch": version("litert-torch")},
        )


def _export(level: LevelProgram, spec: BuildSpec) -> bytes:
    examples = {
        s.name: torch.zeros(s.shape_at(spec.batch), dtype=s.dtype) for s in level.program.inputs
    }
    module = FlatModule(level.program, level.tensors).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            with silenced():
                litert_torch.convert(module, sample_kwargs=examples).export(str(path))
        except Exception as error:
            # litert-torch raises many types, all about what it cannot express.
            reason = reason_of(error)
            raise NestedgeError(f"litert-torch cannot convert the level: {reason}") from error
        return path.read_bytes()


def _signature(model: Any) -> Iterator[TensorInfo]:
    """Inputs and outputs under the names of the signature."""
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0)
    entries = [signature.Inputs(i) for i in range(signature.InputsLength())]
    entries += [signature.Outputs(i) for i in range(signature.OutputsLength())]
    for entry in entries:
        tensor = graph.Tensors(entry.TensorIndex())
        shape = tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        yield TensorInfo(entry.Name().decode(), shape, _DTYPES[tensor.Type()])


def _constants(model: Any) -> Iterator[FoundConstant]:
    """Every constant tensor with the place of its bytes in the flatbuffer."""
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for position in range(graph.TensorsLength()):
            tensor = graph.Tensors(position)
            buffer = model.Buffers(tensor.Buffer())
            if buffer.DataIsNone() or tensor.Type() not in _DTYPES:
                continue
            shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
            array = np.frombuffer(buffer.DataAsNumpy().tobytes(), _DTYPES[tensor.Type()])
            # Field 0 of the table Buffer is its data: a vector whose start is the offset.
            table = buffer._tab
            offset = table.Vector(table.Offset(4))
            yield FoundConstant(tensor.Name().decode(), int(offset), array.reshape(shape))
