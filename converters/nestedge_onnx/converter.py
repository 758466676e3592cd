"""ONNX files by torch.onnx."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

# onnxruntime >= 1.29 sends usage data unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnx
import torch
from onnx import numpy_helper

from nestedge.convert import BuildSpec, Converted, FoundConstant, LevelProgram, explain, reason_of
from nestedge.errors import NestedgeError, UsageError
from nestedge.plugins import TensorInfo
from nestedge.program.emit import FlatModule

OPSET = 18
"""What onnxruntime 1.14 and later load, JetPack 5's 1.19 among them."""


class OnnxConverter:
    """The converter plug-in "onnx"."""

    name = "onnx"
    suffix = ".onnx"
    precisions = ("fp32",)

    def convert(self, level: LevelProgram, spec: BuildSpec) -> Converted:
        """The level as an ONNX file of a fixed batch size.

        Raises:
            UsageError: the precision is not one it has.
            NestedgeError: torch.onnx cannot express the network.
        """
        if spec.precision not in self.precisions:
            raise UsageError(f"onnx: no precision {spec.precision!r}; it has {self.precisions}")
        model = _export(level, spec)
        _strip(model)
        content = model.SerializeToString(deterministic=True)
        return Converted(
            model=content,
            inputs=tuple(_info(value) for value in model.graph.input),
            outputs=tuple(_info(value) for value in model.graph.output),
            constants=explain(list(_constants(model, content)), level),
            producer={"torch": torch.__version__, "onnx": onnx.__version__},
        )


def _export(level: LevelProgram, spec: BuildSpec) -> onnx.ModelProto:
    program = level.program
    examples = [torch.zeros(s.shape_at(spec.batch), dtype=s.dtype) for s in program.inputs]
    module = FlatModule(program, level.tensors).eval()
    try:
        with _quiet():
            exported = torch.onnx.export(
                module,
                tuple(examples),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[s.name for s in program.inputs],
                output_names=[name for name, _ in program.outputs],
                verbose=False,
            )
    except Exception as error:
        # torch.onnx raises many types, all about what it cannot express.
        raise NestedgeError(f"torch.onnx cannot export the level: {reason_of(error)}") from error
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress lines and deprecation warnings from our output."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes of this machine: paths, stack traces, source lines."""
    model.doc_string = ""
    model.producer_name, model.producer_version = "nestedge", ""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    for item in [*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        item.doc_string = ""
        del item.metadata_props[:]
    # Shapes of values in between are inferred again by whoever loads the file.
    del graph.value_info[:]


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return TensorInfo(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)


def _constants(model: onnx.ModelProto, content: bytes) -> Iterator[FoundConstant]:
    """Every initialiser with the place of its bytes: they lie in the file in the graph's order."""
    end = 0
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        name = content.find(initializer.name.encode(), end)
        offset = content.find(array.tobytes(), end)
        assert min(name, offset) >= 0, "an initialiser is in the file it was serialised to"
        end = offset + array.nbytes
        yield FoundConstant(initializer.name, offset, array)
