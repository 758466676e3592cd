"""The converter plug-in "tensorrt": portable ONNX, and how a device builds an engine from it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import onnx

from nestedge.convert import (
    BuildSpec,
    Converted,
    LevelProgram,
    check_half,
    check_half_layers,
    check_spec,
)
from nestedge.documents import json_bytes
from nestedge_onnx.converter import OnnxConverter, converted, left_layers
from nestedge_onnx.exporter import export_model
from nestedge_onnx.grids import on_family_grids
from nestedge_onnx.half import to_half
from nestedge_onnx.quantization import FOR_TENSORRT, quantize
from nestedge_tensorrt.engine import ENGINE_FILE, EngineSpec
from nestedge_tensorrt.lowering import OPSET, lowered
from nestedge_tensorrt.options import EngineOptions
from nestedge_tensorrt.parser import check_ranks, first_version
from nestedge_tensorrt.sparsity import has_sparse_layers


class TensorrtConverter:
    """The converter plug-in "tensorrt".

    Nothing of TensorRT runs here. onnxruntime checks the ONNX file; the engine is the device's.
    """

    name = "tensorrt"
    runtime = "tensorrt"
    checked_by = "onnx"
    suffix = ".onnx"
    precisions = ("fp32", "fp16", "int8")
    mixed = ("int8",)
    packages = OnnxConverter.packages

    def export(self, level: LevelProgram, *, batch: int = 1) -> TensorrtExported:
        """The level as an ONNX graph of a fixed batch size that TensorRT parses.

        Raises:
            NestedgeError: torch.onnx or TensorRT has no operator that the network needs.
        """
        model = lowered(export_model(level, batch=batch))
        check_ranks(model)
        return TensorrtExported(self, level, model, batch=batch)

    def in_half(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A model with weights and arithmetic in float16, for strongly typed engines.

        Raises:
            ConversionError: onnxruntime's tools cannot convert it.
        """
        return to_half(model)


class TensorrtExported:
    """A level as an ONNX graph, from which the files of all precisions are made."""

    def __init__(
        self,
        converter: TensorrtConverter,
        level: LevelProgram,
        model: onnx.ModelProto,
        *,
        batch: int,
    ) -> None:
        self._converter = converter
        self._level = level
        self._model = model
        self._batch = batch

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as an ONNX file, and engine.json beside it.

        fp16 has the file of fp32: TensorRT itself rounds to half precision, layer by layer.

        Raises:
            UsageError: the precision is not one it has, or int8 lacks calibration data.
            NestedgeError: the network cannot be quantised, TensorRT does not parse it, or fp16
                cannot hold one of its weights.
        """
        check_spec(self._converter, spec)
        check_half_layers(self._level, spec)
        if spec.precision == "fp16":
            check_half(self._level)
        model, cases = self._model, None
        if spec.precision == "int8" and spec.calibration:
            left = left_layers(model, self._level, spec)
            model = quantize(model, spec.calibration, FOR_TENSORRT, left=left)
            cases = min(len(array) for array in spec.calibration.values())
        grids = on_family_grids(model, self._level, spec, single=self._model)
        found = converted(model, self._level, self._converter.packages, grids=grids)
        engine = EngineSpec(
            precision=spec.precision,
            model_sha256=hashlib.sha256(found.model).hexdigest(),
            opset=OPSET,
            minimum_tensorrt=first_version(model, (*found.inputs, *found.outputs)),
            batch=self._batch,
            inputs=found.inputs,
            outputs=found.outputs,
            calibration_cases=cases,
            # Of the weights before quantisation: its grid has a zero where they have one.
            options=EngineOptions(sparsity=has_sparse_layers(self._model)),
        )
        files = {ENGINE_FILE: json_bytes(engine.to_json())}
        return replace(found, half_layers=spec.half_layers, files=files)
