"""How a constant of an artifact comes from the tensors of a .nest: data, evaluated in numpy.

Everything that stands between a stored tensor and the bytes of an artifact is written down: the
entries that a level uses, an element mask, a folded batch norm, a transpose, a cast. So the bytes
can be made again, bit for bit, from the tensors alone, on a machine with numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nestedge.errors import FormatError
from nestedge.quantization import along, in_steps, scale_of, usable_steps

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Expression:
    """One operation over stored tensors or other expressions.

    Attributes:
        op: a name of `OPERATIONS`, or "stored": the tensor called `attributes["name"]`.
        inputs: what the operation is applied to.
        attributes: plain JSON values that the operation needs.
    """

    op: str
    inputs: tuple[Expression, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def stored(name: str) -> Expression:
    """A tensor of the .nest as it is stored."""
    return Expression("stored", attributes={"name": name})


def zeros(shape: tuple[int, ...], dtype: str) -> Expression:
    """Nothing but zeros: the bias of a layer that has none, where a format wants one."""
    return Expression("zeros", attributes={"shape": list(shape), "dtype": dtype})


def take(source: Expression, dim: int, intervals: tuple[tuple[int, int], ...]) -> Expression:
    """The entries of some intervals of one dimension."""
    pieces = [list(interval) for interval in intervals]
    return Expression("take", (source,), {"dim": dim, "intervals": pieces})


def masked(source: Expression, codes: Expression, used: tuple[int, ...]) -> Expression:
    """The source where the code is one of `used`, elsewhere zero."""
    return Expression("mask", (source, codes), {"used": list(used)})


def batch_norm_scale(weight: Expression | None, variance: Expression, eps: float) -> Expression:
    """Weight / sqrt(variance + eps), per channel, in float64 until a cast."""
    inputs = (variance,) if weight is None else (variance, weight)
    return Expression("batch_norm_scale", inputs, {"eps": eps})


def scaled(source: Expression, scale: Expression, dim: int) -> Expression:
    """The source times one number for each entry of a dimension, cast to the source's dtype."""
    return Expression("scale", (source, scale), {"dim": dim})


def shifted(
    bias: Expression | None, mean: Expression, scale: Expression, shift: Expression | None
) -> Expression:
    """(bias - mean) * scale + shift, cast to the dtype of the mean."""
    inputs = [mean, scale, *([bias] if bias else []), *([shift] if shift else [])]
    return Expression(
        "shift", tuple(inputs), {"bias": bias is not None, "shift": shift is not None}
    )


def added(source: Expression | None, values: list[float], dtype: str) -> Expression:
    """The source, or zeros, plus given numbers, rounded once to a dtype."""
    inputs = () if source is None else (source,)
    return Expression("added", inputs, {"values": values, "dtype": dtype})


def summed(source: Expression, summand: Expression) -> Expression:
    """The source plus one number for each of its entries, or one for all, in the source's dtype."""
    return Expression("sum", (source, summand))


def applied(weight: Expression, vector: Expression, bias: Expression | None) -> Expression:
    """The weight times a vector (or one number for each of its entries), plus the bias."""
    return Expression("apply", (weight, vector) if bias is None else (weight, vector, bias))


def cast(source: Expression, dtype: str) -> Expression:
    """The source in another dtype, by numpy's name."""
    return Expression("cast", (source,), {"dtype": dtype})


def clipped(source: Expression, least: float, most: float) -> Expression:
    """The source with its entries kept within two bounds."""
    return Expression("clip", (source,), {"least": least, "most": most})


def quantization_scale(source: Expression, axis: int | None) -> Expression:
    """The largest magnitude / 127, for each entry of an axis or for all: int8's steps."""
    return Expression("quantization_scale", (source,), {"axis": axis})


def quantized(source: Expression, scale: Expression, axis: int | None, dtype: str) -> Expression:
    """The source / scale as integers of a dtype; a scale for each entry of an axis, or one."""
    return Expression("quantize", (source, scale), {"axis": axis, "dtype": dtype})


def signed(source: Expression, factor: Expression, axis: int) -> Expression:
    """The source times the sign of one number for each entry of an axis: -1, 0 or 1."""
    return Expression("sign", (source, factor), {"axis": axis})


def stepped(scale: Expression, factor: Expression) -> Expression:
    """The scales times the magnitudes of other numbers, rounded once; 1 where that is nothing."""
    return Expression("step", (scale, factor))


def transposed(source: Expression, dims: tuple[int, ...]) -> Expression:
    """The source with its dimensions in another order."""
    return Expression("transpose", (source,), {"dims": list(dims)})


def reshaped(source: Expression, shape: tuple[int, ...]) -> Expression:
    """The source in another shape."""
    return Expression("reshape", (source,), {"shape": list(shape)})


def evaluate(expression: Expression, tensors: Mapping[str, Array]) -> Array:
    """The array that an expression stands for.

    Args:
        expression: what to compute.
        tensors: every stored tensor that it names.

    Raises:
        FormatError: an operation or a stored tensor is unknown.
    """
    if expression.op == "stored":
        name = expression.attributes["name"]
        if name not in tensors:
            raise FormatError(f"a constant needs tensor {name!r}, which the file does not have")
        return tensors[name]
    if expression.op not in OPERATIONS:
        raise FormatError(
            f"a constant needs operation {expression.op!r}; known: {sorted(OPERATIONS)}"
        )
    inputs = [evaluate(item, tensors) for item in expression.inputs]
    return OPERATIONS[expression.op](inputs, expression.attributes)


def _take(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    (source,) = inputs
    index: list[slice] = [slice(None)] * source.ndim
    pieces = []
    for start, stop in attributes["intervals"]:
        index[attributes["dim"]] = slice(start, stop)
        pieces.append(source[tuple(index)])
    return np.concatenate(pieces, axis=attributes["dim"]) if len(pieces) != 1 else pieces[0]


def _mask(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    source, codes = inputs
    return np.where(np.isin(codes, attributes["used"]), source, np.zeros((), source.dtype))


def _batch_norm_scale(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    scale: Array = 1.0 / np.sqrt(inputs[0].astype(np.float64) + attributes["eps"])
    return scale if len(inputs) == 1 else scale * inputs[1].astype(np.float64)


def _scale(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    source, scale = inputs
    shape = [1] * source.ndim
    shape[attributes["dim"]] = len(scale)
    product: Array = (source.astype(np.float64) * scale.reshape(shape)).astype(source.dtype)
    return product


def _shift(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    mean, scale, *rest = inputs
    bias = rest.pop(0).astype(np.float64) if attributes["bias"] else 0.0
    shift = rest.pop(0).astype(np.float64) if attributes["shift"] else 0.0
    moved: Array = ((bias - mean.astype(np.float64)) * scale + shift).astype(mean.dtype)
    return moved


def _cast(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    return inputs[0].astype(attributes["dtype"])


def _clip(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    source = inputs[0]
    least, most = (np.array(attributes[name], source.dtype) for name in ("least", "most"))
    return np.clip(source, least, most)


def _quantization_scale(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    return scale_of(inputs[0], attributes["axis"])


def _quantize(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    source, scale = inputs
    steps = along(scale, source.ndim, attributes["axis"])
    return in_steps(source, steps, attributes["dtype"])


def _sign(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    source, factor = inputs
    signs = np.sign(factor).astype(source.dtype)
    product: Array = source * along(signs, source.ndim, attributes["axis"])
    return product


def _step(inputs: list[Array], _: Mapping[str, Any]) -> Array:
    scale, factor = inputs
    return usable_steps(scale.astype(np.float64) * np.abs(factor), scale.dtype)


def _added(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    values = np.array(attributes["values"], dtype=np.float64)
    total = values + inputs[0].astype(np.float64) if inputs else values
    return total.astype(attributes["dtype"])


def _sum(inputs: list[Array], _: Mapping[str, Any]) -> Array:
    source, summand = inputs
    total: Array = (source.astype(np.float64) + summand.astype(np.float64)).astype(source.dtype)
    return total


def _apply(inputs: list[Array], _: Mapping[str, Any]) -> Array:
    weight, vector, *rest = inputs
    columns = np.ascontiguousarray(weight.T, dtype=np.float64)
    total = rest[0].astype(np.float64) if rest else np.zeros(len(weight))
    # One column after the other: a library's matrix product adds in an order of its own, which
    # differs from machine to machine in the last bit.
    for column, factor in zip(columns, np.broadcast_to(vector, len(columns)), strict=True):
        total = total + column * np.float64(factor)
    return total.astype(weight.dtype)


def _transpose(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    return np.transpose(inputs[0], attributes["dims"])


def _reshape(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    return inputs[0].reshape(attributes["shape"])


def _zeros(_: list[Array], attributes: Mapping[str, Any]) -> Array:
    return np.zeros(attributes["shape"], attributes["dtype"])


OPERATIONS: dict[str, Callable[[list[Array], Mapping[str, Any]], Array]] = {
    "zeros": _zeros,
    "take": _take,
    "mask": _mask,
    "batch_norm_scale": _batch_norm_scale,
    "scale": _scale,
    "shift": _shift,
    "cast": _cast,
    "clip": _clip,
    "quantization_scale": _quantization_scale,
    "quantize": _quantize,
    "sign": _sign,
    "step": _step,
    "added": _added,
    "sum": _sum,
    "apply": _apply,
    "transpose": _transpose,
    "reshape": _reshape,
}
"""Every operation of an expression."""


def to_json(expression: Expression) -> dict[str, Any]:
    """The expression as JSON data."""
    data: dict[str, Any] = {"op": expression.op, **expression.attributes}
    if expression.inputs:
        data["inputs"] = [to_json(item) for item in expression.inputs]
    return data


def from_json(data: Any, *, path: str) -> Expression:
    """An expression from JSON data.

    Raises:
        FormatError: the data is not an expression; the message names the place.
    """
    if not isinstance(data, dict) or not isinstance(data.get("op"), str):
        raise FormatError(f"{path}: expected an expression with an op, found {type(data).__name__}")
    if data["op"] not in OPERATIONS and data["op"] != "stored":
        raise FormatError(f"{path}.op: expected one of {sorted(OPERATIONS)}, found {data['op']!r}")
    inputs = tuple(
        from_json(item, path=f"{path}.inputs.{i}") for i, item in enumerate(data.get("inputs", []))
    )
    attributes = {key: value for key, value in data.items() if key not in ("op", "inputs")}
    return Expression(data["op"], inputs, attributes)
