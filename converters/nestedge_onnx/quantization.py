"""An ONNX model with 8-bit weights and activations, as QuantizeLinear/DequantizeLinear pairs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from nestedge.diagnosis import failed
from nestedge.explanation import Steps
from nestedge.expressions import Array
from nestedge.reasons import conversion_error
from nestedge_onnx.branches import unsuited
from nestedge_onnx.exporter import strip
from nestedge_onnx.products import with_gemms
from nestedge_onnx.quiet import quiet
from nestedge_onnx.unrounded import LAYERS, read_unrounded

_LAYERS = ("Conv", "Gemm", "MatMul")
_DEQUANTIZE = "DequantizeLinear"
# What passes numbers on, so that it may work on 8 bits between two layers.
_PASSING = ("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose")


@dataclass(frozen=True)
class Scheme:
    """Which numbers are 8-bit, and what they stand for.

    Weights are int8 with a scale for each output channel and zero points of 0 in every scheme.

    Attributes:
        activations: "uint8", each with a zero point of its own, or "int8" with zero points of 0.
        operators: which are quantised; sums, products and sigmoids as `unsuited` lets them be.
        unquantized_outputs: operators whose output is quantised only where its reader wants it.
        has_gemms: whether a matrix product and its bias are one Gemm.
        options: further ones of onnxruntime's quantiser.
    """

    activations: str
    operators: tuple[str, ...]
    unquantized_outputs: tuple[str, ...]
    has_gemms: bool
    options: Mapping[str, object] = field(default_factory=dict)


FOR_ONNXRUNTIME = Scheme(
    activations="uint8",
    # Where two 8-bit branches meet is one operator of onnxruntime's.
    operators=(*_LAYERS, *_PASSING, "Sigmoid", "Add", "Mul"),
    # Its 8-bit matrix products can give single precision: logits lose nothing then.
    unquantized_outputs=("Gemm", "MatMul"),
    has_gemms=True,
)
"""The form that onnxruntime computes fastest: on x86 its int8 by int8 products are slower."""

FOR_TENSORRT = Scheme(
    activations="int8",
    # 8 bits are what layers read. What they give is not rounded before it is read, so that what
    # follows a layer can be fused with it. Where a sum reads what a layer reads too, as in a
    # residual network, it reads the 8 bits, as NVIDIA advises.
    operators=_LAYERS,
    unquantized_outputs=_LAYERS,
    has_gemms=False,
    options={
        "ActivationSymmetric": True,
        # TensorRT 8.2 has no constants of int8: weights stay in single precision, before a pair.
        "AddQDQPairToWeight": True,
        # A pair is fused with the one layer that reads it.
        "DedicatedQDQPair": True,
        # Biases are added in single precision; a DequantizeLinear of int32 is refused.
        "QuantizeBias": False,
    },
)
"""The form that TensorRT reads as explicit quantisation."""


def quantize(
    model: onnx.ModelProto,
    calibration: Mapping[str, Array],
    scheme: Scheme = FOR_ONNXRUNTIME,
    *,
    left: Collection[str] = (),
) -> onnx.ModelProto:
    """The model with its layers, and what only passes numbers on between them, in 8 bits.

    Inputs and outputs stay as they are. Normalisations, softmax, and activation functions other
    than ReLU and a convolution's SiLU keep single precision: in 8 bits they ruin transformers.

    Args:
        model: in single precision.
        calibration: by input, of shape (cases, *shape of the input); activations get the range
            that they have for these.
        scheme: which form.
        left: names of weights whose layers are left in single precision, and so is what they read.

    Raises:
        ConversionError: onnxruntime's quantiser cannot quantise the model, or nothing in it.
    """
    prepared = with_gemms(model) if scheme.has_gemms else copy.deepcopy(model)
    single = frozenset(node.name for node in layers_of(prepared.graph, left))
    # The quantiser changes the model that it is given.
    original = copy.deepcopy(prepared) if single else prepared
    # Advice to optimise first would be logged for every model; what torch exports is optimised.
    onnx.helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
    options = {"OpTypesToExcludeOutputQuantization": list(scheme.unquantized_outputs)}
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            quantize_static(
                prepared,
                path,
                _Cases(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(scheme.operators),
                nodes_to_exclude=[*single, *unsuited(prepared.graph, single)],
                per_channel=True,
                activation_type=_TYPES[scheme.activations],
                weight_type=QuantType.QInt8,
                extra_options={**scheme.options, **options},
            )
            quantized = onnx.load(path)
    except Exception as error:
        # The quantiser raises many types, all about what it cannot quantise.
        task = "onnxruntime cannot quantise to int8"
        raise failed(task, error, otherwise="quantiser-failed") from error
    if not any(node.op_type == _DEQUANTIZE for node in quantized.graph.node):
        # trtexec would make up ranges of its own for such a file.
        said = "onnxruntime cannot quantise to int8: nothing in it can be quantised"
        raise conversion_error("nothing-to-quantise", said)
    if single:
        read_unrounded(quantized, original, single)
    strip(quantized)
    return quantized


def layers_of(graph: onnx.GraphProto, weights: Collection[str]) -> list[onnx.NodeProto]:
    """The layers that read some weights."""
    return [
        node
        for node in graph.node
        if node.op_type in LAYERS and not set(node.input[:2]).isdisjoint(weights)
    ]


_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


class _Cases(CalibrationDataReader):  # type: ignore[misc]
    """Calibration data as onnxruntime reads it: one case after the other, then None."""

    def __init__(self, calibration: Mapping[str, Array]) -> None:
        count = min(len(array) for array in calibration.values())
        self._cases = iter(
            [{name: array[i] for name, array in calibration.items()} for i in range(count)]
        )

    # Its own readers end with None too.
    def get_next(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> dict[str, Array] | None:
        """The next case, by input."""
        return next(self._cases, None)


def steps_of(graph: onnx.GraphProto) -> dict[str, Steps]:
    """What the whole numbers of every quantised weight and bias stand for, by constant."""
    constants = {item.name: item for item in graph.initializer}
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == _DEQUANTIZE}
    factors = {}
    for node in graph.node:
        # Third of a layer's inputs is its bias, in steps of the first's times the weight's.
        if node.op_type in _LAYERS and {node.input[0], *node.input[2:]} <= dequantized.keys():
            scale = constants[dequantized[node.input[0]].input[1]]
            factors.update(dict.fromkeys(node.input[2:], float(numpy_helper.to_array(scale))))
    found = {}
    for output, node in dequantized.items():
        if node.input[0] in constants:
            scales = numpy_helper.to_array(constants[node.input[1]])
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
            steps = Steps(scales, axis if scales.ndim else None, factors.get(output))
            found[node.input[0]] = steps
    return found
