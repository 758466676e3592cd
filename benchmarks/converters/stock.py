"""Files as anyone makes them: the frameworks' tools, called directly with their defaults."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import litert_torch
import onnx
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import QuantizationResult, Quantizer
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from nestedge.expressions import Array
from nestedge_tflite.quiet import silenced

Files = Mapping[str, Callable[[], bytes]]
"""What makes the file of each precision."""


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


def onnx_files(module: nn.Module, image: Tensor, images: Array) -> Files:
    """torch.onnx, and onnxruntime's own tools behind it.

    Args:
        module: in evaluation mode.
        image: an example, batch of 1.
        images: to calibrate with, shape (cases, *shape of the example).
    """
    with warnings.catch_warnings(), silenced():
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
        prepared, path = Path(folder) / "prepared.onnx", Path(folder) / "model.onnx"
        quant_pre_process(_copied(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            images,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()


def tflite_files(module: nn.Module, image: Tensor, images: Array) -> Files:
    """litert-torch, and the recipes of ai-edge-quantizer behind it."""
    with warnings.catch_warnings(), silenced(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.tflite"
        litert_torch.convert(module, (image,)).export(str(path))
        content = path.read_bytes()
    return {
        "fp32": lambda: content,
        "fp16": lambda: _half(content),
        "int8": lambda: _static(content, images),
    }


def _half(content: bytes) -> bytes:
    quantizer = Quantizer(content)
    quantizer.add_weight_only_config(
        ".*",
        TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return _content(quantizer.quantize())


def _static(content: bytes, images: Array) -> bytes:
    quantizer = Quantizer(content, recipe.static_wi8_ai8())
    (key,) = Interpreter(model_content=content).get_signature_list()
    cases: dict[str, Iterable[dict[str, Array]]] = {key: [{"args_0": image} for image in images]}
    return _content(quantizer.quantize(quantizer.calibrate(cases)))


def _content(result: QuantizationResult) -> bytes:
    assert result.quantized_model is not None
    return bytes(result.quantized_model)


STOCK = {"onnx": onnx_files, "tflite": tflite_files}
