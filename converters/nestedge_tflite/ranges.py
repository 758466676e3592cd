"""The ranges that 8 bits stand for, as ai-edge-quantizer wants them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.qtyping import QSV
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils.qsv_utils import min_max_update

from nestedge.grids import MOST_STEPS_OF_A_BIAS, holds_bias
from nestedge.plugins import Array
from nestedge_tflite.flatbuffer import Layer, layers


@dataclass(frozen=True)
class Ranges:
    """What the numbers of a model may be.

    Attributes:
        of: smallest and largest, by tensor.
        on_grids: the weights that have the steps that were asked for.
    """

    of: dict[str, QSV]
    on_grids: frozenset[str]


def ranges_of(
    model: bytes,
    recipe: RecipeManager,
    calibration: Mapping[str, Array],
    *,
    steps: Mapping[str, Array],
    left: Collection[str] = (),
) -> Ranges:
    """The range of every tensor, wide enough for what is computed with it.

    Args:
        model: in single precision.
        recipe: which operators are quantised.
        calibration: by input of the signature, of shape (cases, *shape of the input).
        steps: what a 1 of a weight is to stand for, along its channels, by the weight's tensor.
        left: the weights of layers that are not quantised, though what is around them may be.

    Raises:
        ValueError: no operator is quantised.
    """
    ranges = _observed(model, recipe, calibration)
    if not ranges:
        raise ValueError("nothing in it can be quantised; build fp32")
    for name, found in ranges.items():
        if _span(found) == 0:
            # A step would be next to nothing, and whatever reads it would be far out of range.
            ranges[name] = {"min": found["min"], "max": np.ones_like(found["max"])}
    quantized = [
        found
        for found in layers(model)
        if {found.data, found.output} <= ranges.keys() and found.weight_name not in left
    ]
    suited = {
        name: of
        for name, of in steps.items()
        if all(_holds(ranges, layer, of) for layer in quantized if layer.weight_name == name)
    }
    for layer in quantized:
        _widen(ranges, layer, suited.get(layer.weight_name))
    return Ranges(ranges, frozenset(suited))


def _observed(
    model: bytes, recipe: RecipeManager, calibration: Mapping[str, Array]
) -> dict[str, QSV]:
    """The smallest and largest value of every tensor over all cases.

    The quantizer's own choice is a moving average that the first case dominates.
    """
    calibrator = Calibrator(model, num_threads=1, qsv_update_func=min_max_update)
    (key,) = calibrator.get_signature_list()
    count = len(next(iter(calibration.values())))
    cases = [{name: array[i] for name, array in calibration.items()} for i in range(count)]
    calibrator.calibrate({key: cases}, recipe)
    ranges: dict[str, QSV] = calibrator.get_model_qsvs()
    return ranges


def _holds(ranges: Mapping[str, QSV], layer: Layer, steps: Array) -> bool:
    """Whether the bias of a layer fits into whole numbers with such steps of its weight."""
    step = _span(ranges[layer.data]) / 255
    return layer.bias is None or holds_bias(steps, layer.bias, input_step=step)


def _widen(ranges: dict[str, QSV], layer: Layer, steps: Array | None) -> None:
    """Widens the ranges of a layer's weight and output where its input and bias need it.

    A bias is a whole number of steps of the input's times the weight's. A channel whose weights
    are zero, or next to it, has so small a step that its bias would saturate without a word: a
    pruned channel, or one that a batch norm has switched off. onnxruntime's quantiser widens too.
    """
    step = _span(ranges[layer.data]) / 255
    others = tuple(dim for dim in range(layer.weight.ndim) if dim != layer.axis)
    own = np.abs(layer.weight).max(axis=others, keepdims=True).astype(np.float64)
    if steps is not None:
        own = (127 * steps.astype(np.float64)).reshape(own.shape)
        most = own.astype(np.float32)
        ranges[layer.weight_name] = {"min": -most, "max": most}
    bias = 0.0 if layer.bias is None else np.abs(layer.bias, dtype=np.float64).reshape(own.shape)
    bound = np.maximum(own, 127 * bias / (step * MOST_STEPS_OF_A_BIAS))
    if steps is None and (bound > own).any():
        # A weight that several layers read is wide enough for each.
        before = ranges[layer.weight_name]["max"] if layer.weight_name in ranges else 0.0
        most = np.maximum(bound, before).astype(np.float32)
        ranges[layer.weight_name] = {"min": -most, "max": most}
    # XNNPACK refuses an output much finer than the products, as that of a dead ReLU may be.
    missing = step * float(bound.max()) / 127 * 255 - _span(ranges[layer.output])
    if missing > 0:
        found = ranges[layer.output]
        ranges[layer.output] = {**found, "max": (found["max"] + missing).astype(np.float32)}


def _span(found: QSV) -> float:
    """The width of a range with the zero that is always in it."""
    return max(float(np.max(found["max"])), 0.0) - min(float(np.min(found["min"])), 0.0)
