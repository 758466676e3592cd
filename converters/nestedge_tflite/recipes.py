"""TFLite files in int8-dynamic, int8-full and int16x8, by ai-edge-quantizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.recipe_manager import RecipeManager

from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge_tflite.flatbuffer import float_operators, layers
from nestedge_tflite.grids import WeightGrid
from nestedge_tflite.mixed import NOTHING, FloatPart
from nestedge_tflite.quantization import quantized

_DYNAMIC = ("CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP", "FULLY_CONNECTED")
# XNNPACK has no depthwise convolution whose input finds its range at each run. The interpreter's
# own, which runs instead, is slower than XNNPACK's in single precision up to 5x5, and faster than
# that for larger kernels: MobileNetV3 takes 0.56 of the time without, ConvNeXt 1.76.
_DEPTHWISE = "DEPTHWISE_CONV_2D"
_MOST_TAPS = 25


def quantize_dynamically(model: bytes) -> bytes:
    """The model with the weights of layers in 8 bits; ranges of activations are found at each run.

    Args:
        model: in single precision.

    Raises:
        NestedgeError: ai-edge-quantizer cannot do it.
    """
    recipe = RecipeManager()
    for name in _dynamic(model):
        recipe.add_dynamic_config(".*", TFLOperationName(name), num_bits=8)
    return quantized(model, recipe, precision="int8-dynamic", calibration=None)


def quantize_fully(
    model: bytes, calibration: Mapping[str, Array], *, grids: Sequence[WeightGrid] = ()
) -> bytes:
    """The model in 8 bits with nothing in single precision, its inputs and outputs in 8 bits too.

    Args:
        model: in single precision.
        calibration: by input of the signature, of shape (cases, *shape of the input).
        grids: of the weights that are to have the same whole numbers in all levels.

    Raises:
        NestedgeError: ai-edge-quantizer cannot do it, or leaves operators in single precision.
    """
    recipe = RecipeManager()
    recipe.add_static_config(
        ".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8
    )
    content = quantized(model, recipe, precision="int8-full", calibration=calibration, grids=grids)
    left = float_operators(content)
    if left:
        raise NestedgeError(
            f"ai-edge-quantizer cannot make int8-full of the level: {listed(left)} would stay in "
            "single precision, which an accelerator of whole numbers lacks; build int8"
        )
    return content


def quantize_to_16_bits(
    model: bytes,
    calibration: Mapping[str, Array],
    *,
    grids: Sequence[WeightGrid] = (),
    left: FloatPart = NOTHING,
) -> bytes:
    """The model with weights in 8 bits and activations in 16; inputs and outputs stay as they are.

    What has no kernel of 16 bits stays in single precision; `float_operators` says what that is.

    Args:
        model: in single precision.
        calibration: by input of the signature, of shape (cases, *shape of the input).
        grids: of the weights that are to have the same whole numbers in all levels.
        left: what computes in floating point.

    Raises:
        NestedgeError: ai-edge-quantizer cannot do it.
    """
    recipe = RecipeManager()
    recipe.add_static_config(
        ".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=16, weight_num_bits=8
    )
    # A later rule wins.
    for name in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipe.add_quantization_config(".*", name, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return quantized(
        model, recipe, precision="int16x8", calibration=calibration, grids=grids, left=left
    )


def _dynamic(model: bytes) -> tuple[str, ...]:
    """The kinds of layers that are faster when they find their ranges at each run."""
    depthwise = [layer for layer in layers(model) if layer.axis != 0]
    taps = [layer.weight[..., 0].size for layer in depthwise]
    return (*_DYNAMIC, _DEPTHWISE) if taps and min(taps) > _MOST_TAPS else _DYNAMIC


def listed(kinds: Counter[str]) -> str:
    """Kinds of operators with their numbers, as in "3 SIN, 1 COS"."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
