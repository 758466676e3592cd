"""ONNX files as anyone makes them: torch.onnx and onnxruntime's tools, with their defaults."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from benchmarks.converters.stock import Files
from nestedge.plugins import Array


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images as onnxruntime reads them."""

    def __init__(self, name: str, images: Array) -> None:
        self._cases = iter([{name: image} for image in images])

    # Its own readers end with None too.
    def get_next(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> dict[str, Array] | None:
        """The next image."""
        return next(self._cases, None)


def files(module: nn.Module, image: Tensor, images: Array) -> Files:
    """torch.onnx, and onnxruntime's own tools behind it.

    Args:
        module: in evaluation mode.
        image: an example, batch of 1.
        images: to calibrate with, shape (cases, *shape of the example).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            module, (image,), dynamo=True, external_data=False, verbose=False
        )
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    name = model.graph.input[0].name
    return {
        "fp32": model.SerializeToString,
        "fp16": lambda: convert_float_to_float16(
            _copied(model), keep_io_types=True
        ).SerializeToString(),
        "int8": lambda: _quantized(model, _Images(name, images)),
    }


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _quantized(model: onnx.ModelProto, images: _Images) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, path = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            images,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()
