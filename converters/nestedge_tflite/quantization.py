"""TFLite files in half precision and in 8 bits, by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager

from nestedge.diagnosis import failed
from nestedge.expressions import Array
from nestedge.redirection import silenced
from nestedge_tflite.flatbuffer import check_outputs, operators
from nestedge_tflite.grids import WeightGrid, put_on_grids
from nestedge_tflite.mixed import NOTHING, FloatPart
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
        ConversionError: ai-edge-quantizer cannot do it.
    """
    recipe = RecipeManager()
    recipe.add_weight_only_config(
        ".*",
        TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return quantized(model, recipe, precision="fp16", calibration=None)


def quantize(
    model: bytes,
    calibration: Mapping[str, Array],
    *,
    grids: Sequence[WeightGrid] = (),
    left: FloatPart = NOTHING,
) -> bytes:
    """The model in 8 bits; inputs and outputs stay as they are.

    Weights get one scale per output channel, activations the range that they have in the
    calibration cases. In a network with attention or layer norms only the layers work in 8 bits,
    else everything between them too.

    Args:
        model: in single precision.
        calibration: by input of the signature, of shape (cases, *shape of the input).
        grids: of the weights that are to have the same whole numbers in all levels.
        left: what computes in floating point.

    Raises:
        ConversionError: ai-edge-quantizer cannot do it.
    """
    names = _LAYERS if operators(model) & _SENSITIVE else (*_LAYERS, *_BETWEEN_LAYERS)
    recipe = RecipeManager()
    for name in names:
        recipe.add_static_config(
            ".*", TFLOperationName(name), activation_num_bits=8, weight_num_bits=8
        )
    return quantized(
        model, recipe, precision="int8", calibration=calibration, grids=grids, left=left
    )


def quantized(
    model: bytes,
    recipe: RecipeManager,
    *,
    precision: str,
    calibration: Mapping[str, Array] | None,
    grids: Sequence[WeightGrid] = (),
    left: FloatPart = NOTHING,
) -> bytes:
    """The model by a recipe of ai-edge-quantizer's.

    Args:
        model: in single precision.
        recipe: which operators are quantised, and how.
        precision: what messages call it.
        calibration: as for `quantize`; None where no ranges are needed.
        grids: as for `quantize`.
        left: as for `quantize`.

    Raises:
        ConversionError: ai-edge-quantizer cannot do it.
    """
    left.add_to(recipe)
    grids = [grid for grid in grids if grid.tensor not in left.weights]
    try:
        with silenced():
            quantizer = Quantizer(model, recipe.get_quantization_recipe())
            ranges = None
            if calibration is not None:
                steps = {grid.tensor: grid.steps for grid in grids}
                ranges = ranges_of(model, recipe, calibration, steps=steps, left=left.weights)
            result = quantizer.quantize(ranges and ranges.of, enable_progress_report=False)
        assert result.quantized_model is not None
        content = bytes(result.quantized_model)
        if ranges is not None:
            kept = [grid for grid in grids if grid.tensor in ranges.on_grids]
            content = put_on_grids(content, kept, single=model)
        check_outputs(content)
    except Exception as error:
        # The quantizer raises many types, all about what it cannot quantise.
        task = f"ai-edge-quantizer cannot make {precision} of the level"
        raise failed(task, error, otherwise="quantiser-failed") from error
    return content
