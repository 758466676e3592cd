"""TFLite files as anyone makes them: litert-torch and ai-edge-quantizer, with their defaults."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import litert_torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import QuantizationResult, Quantizer
from torch import Tensor, nn

from benchmarks.converters.stock import Files
from nestedge.plugins import Array


def files(module: nn.Module, image: Tensor, images: Array) -> Files:
    """litert-torch, and the recipes of ai-edge-quantizer behind it."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
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
