"""The converter plug-in "onnx-ort": files in ONNX Runtime's own format, for its mobile builds."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
    InferenceSession as OrtFile,
)

from nestedge.convert import BuildSpec, Constant, Converted, LevelProgram, check_spec
from nestedge.diagnosis import failed
from nestedge_onnx.converter import OnnxConverter, OnnxExported, converted
from nestedge_onnx.dynamic import PRODUCTS, to_dynamic
from nestedge_onnx.exporter import ONNXRUNTIME_OPSET, export_model
from nestedge_onnx.quiet import quiet


class OrtConverter(OnnxConverter):
    """The converter plug-in "onnx-ort"."""

    name = "onnx-ort"
    suffix = ".ort"

    def export(self, level: LevelProgram, *, batch: int = 1) -> OrtExported:
        """The level as an ONNX graph of a fixed batch size.

        Raises:
            NestedgeError: torch.onnx cannot express the network.
        """
        model = export_model(level, batch=batch, opset=ONNXRUNTIME_OPSET)
        return OrtExported(self, level, model)


class OrtExported(OnnxExported):
    """A level as an ONNX graph, from which .ort files of all precisions are made."""

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as an .ort file.

        In int8-dynamic convolutions keep weights in single precision: constants are multiplied
        out before the file is written, so that it would have those anyway.

        Raises:
            UsageError: the precision is not one it has, or int8 lacks calibration data.
            NestedgeError: onnxruntime's tools cannot make the precision of the network, or
                fp16 cannot hold one of its weights.
        """
        check_spec(self._converter, spec)
        if spec.precision == "int8-dynamic":
            model = to_dynamic(self._model, PRODUCTS)
            made = converted(model, self._level, self._converter.packages)
        else:
            made = super().convert(spec)
        content = to_ort(made.model)
        return replace(made, model=content, constants=_relocated(made, content))

    def _stored(
        self,
        model: onnx.ModelProto,
        left: Collection[str],  # noqa: ARG002
    ) -> onnx.ModelProto:
        """The model as it is: casts of constants are worked out before the file is written."""
        return model


def to_ort(model: bytes) -> bytes:
    """An ONNX model as an .ort file, fused as every machine can run it.

    Its constants come in another order each time: onnxruntime keeps them in a hash table.

    Raises:
        ConversionError: onnxruntime cannot load the model.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ort"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        # What comes behind it, such as a layout of blocks as wide as this processor's registers,
        # belongs to this machine.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's exceptions have no base of their own.
            task = "onnxruntime cannot write the .ort file"
            raise failed(task, error, otherwise="converter-refused") from error
        return path.read_bytes()


def _relocated(made: Converted, content: bytes) -> tuple[Constant, ...]:
    """The constants of an .ort file, each with the expression of the same one in the ONNX file."""
    known = {constant.name: constant for constant in made.constants}
    return tuple(
        replace(found, expression=source.expression)
        if (source := known.get(found.name)) is not None
        and _bytes(found, content) == _bytes(source, made.model)
        else found
        for found in _constants(content)
    )


def _bytes(constant: Constant, content: bytes) -> bytes:
    return content[constant.offset : constant.offset + constant.size_bytes]


def _constants(content: bytes) -> Iterator[Constant]:
    """The constants that lie in an .ort file, in the order of the file."""
    start = _address(np.frombuffer(content, np.uint8))
    model = OrtFile.GetRootAs(content).Model()
    assert model is not None, "onnxruntime wrote it"
    graph = model.Graph()
    found = []
    for tensor in map(graph.Initializers, range(graph.InitializersLength())):
        if tensor.RawDataIsNone():
            # Of no entries.
            continue
        raw = tensor.RawDataAsNumpy()
        shape: Sequence[int] = () if tensor.DimsIsNone() else tensor.DimsAsNumpy().tolist()
        found.append(
            Constant(
                name=tensor.Name().decode(),
                offset=_address(raw) - start,
                size_bytes=raw.nbytes,
                # The format numbers its dtypes as ONNX does.
                dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.DataType()).name,
                shape=tuple(shape),
                expression=None,
            )
        )
    yield from sorted(found, key=lambda constant: constant.offset)


def _address(array: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
