"""TFLite files in half precision and in 8 bits, by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Mapping

from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager

from nestedge.convert import reason_of
from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge_tflite.flatbuffer import check_outputs, operators
from nestedge_tflite.quiet import silenced
from nestedge_tflite.ranges import ranges_of

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
# What XNNPACK computes in 8 bits too. HARD_SWISH is not among it: the reference kernel that runs
# instead makes a MobileNetV3 five times slower than it is with conversions on both sides.
_BETWEEN_LAYERS = (
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MEAN",
    "MUL",
    "PAD",
    "PADV2",
    "RELU",
    "RESHAPE",
    "SLICE",
    "STRIDED_SLICE",
    "TRANSPOSE",
)
# Signs of attention and of norms that are computed from their input. What flows between the layers
# of such a network has too wide a range: in 8 bits, ViT-B/16 keeps a cosine of 0.90 only.
_SENSITIVE = {
    schema.BuiltinOperator.BATCH_MATMUL,
    schema.BuiltinOperator.RSQRT,
    schema.BuiltinOperator.SQRT,
}


def to_half(model: bytes) -> bytes:
    """The model with weights of layers in half precision; inputs and outputs stay as they are.

    It halves the file. LiteRT casts the weights back when it loads the file, and computes in single
    precision: the metadata by which a file allows less are not written.

    Raises:
        NestedgeError: ai-edge-quantizer cannot do it.
    """
    recipe = RecipeManager()
    recipe.add_weight_only_config(
        ".*",
        TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return _quantized(model, recipe, precision="fp16", calibration=None)


def quantize(model: bytes, calibration: Mapping[str, Array]) -> bytes:
    """The model in 8 bits; inputs and outputs stay as they are.

    Weights get one scale per output channel, activations the range that they have in the
    calibration cases. In a network with attention or layer norms only the layers work in 8 bits,
    else everything between them too.

    Args:
        model: in single precision.
        calibration: by input of the signature, of shape (cases, *shape of the input).

    Raises:
        NestedgeError: ai-edge-quantizer cannot do it.
    """
    names = _LAYERS if operators(model) & _SENSITIVE else (*_LAYERS, *_BETWEEN_LAYERS)
    recipe = RecipeManager()
    for name in names:
        recipe.add_static_config(
            ".*", TFLOperationName(name), activation_num_bits=8, weight_num_bits=8
        )
    return _quantized(model, recipe, precision="int8", calibration=calibration)


def _quantized(
    model: bytes,
    recipe: RecipeManager,
    *,
    precision: str,
    calibration: Mapping[str, Array] | None,
) -> bytes:
    try:
        with silenced():
            quantizer = Quantizer(model, recipe.get_quantization_recipe())
            ranges = None if calibration is None else ranges_of(model, recipe, calibration)
            result = quantizer.quantize(ranges, enable_progress_report=False)
        assert result.quantized_model is not None
        content = bytes(result.quantized_model)
        check_outputs(content)
    except Exception as error:
        # The quantizer raises many types, all about what it cannot quantise.
        raise NestedgeError(
            f"ai-edge-quantizer cannot make {precision} of the level: {reason_of(error)}"
        ) from error
    return content
