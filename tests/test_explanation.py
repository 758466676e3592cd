from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nestedge.convert import Constant, LevelProgram, tensor_of
from nestedge.explanation import FoundConstant, Steps, check_constants, explain
from nestedge.expressions import Expression, evaluate, stored
from nestedge.quantization import along, in_steps, scale_of
from tests.conversions import unconvertible_level

Array = npt.NDArray[Any]

_RNG = np.random.default_rng(0)
TENSORS: dict[str, Array] = {
    "conv.weight": _RNG.standard_normal((4, 3, 2, 2)).astype(np.float32),
    "conv.bias": _RNG.standard_normal(4).astype(np.float32),
    "twin.bias": _RNG.standard_normal(4).astype(np.float32),
    "same.bias": np.zeros(4, np.float32),
    "large": np.array([1.0, -1e6, 1e-8, 3.0, 4.0], np.float32),
    "square": _RNG.standard_normal((3, 3)).astype(np.float32),
    "codes": np.arange(6, dtype=np.int64),
}
TENSORS["same.bias"] = TENSORS["conv.bias"]
W, BIAS, SQUARE = TENSORS["conv.weight"], TENSORS["conv.bias"], TENSORS["square"]
SCALES = scale_of(W, 0)
FACTOR = 0.0123
PRODUCT = SCALES * np.float32(FACTOR)
FINE = SCALES * np.float32(FACTOR / 1e3)
ADJUSTED = SCALES * np.float32(1.5)


@pytest.fixture(scope="module")
def level() -> LevelProgram:
    """A level whose tensors are those above, as they are stored."""
    return LevelProgram(
        program=unconvertible_level().program,
        tensors={name: tensor_of(array) for name, array in TENSORS.items()},
        expressions={name: stored(name) for name in TENSORS},
        stored=TENSORS,
    )


def _quantized(array: Array, scales: Array, axis: int | None, dtype: str = "int8") -> Array:
    return in_steps(array, along(scales, array.ndim, axis), dtype)


def _operations(expression: Expression) -> list[str]:
    """Operations from the outside in, the first input's first."""
    return [expression.op, *(op for item in expression.inputs for op in _operations(item))]


@dataclass(frozen=True)
class Case:
    """A constant and the operations that must be found."""

    array: Array
    operations: list[str]
    steps: Steps | None = None


_SCALE = ["quantization_scale", "stored"]
EXPLAINED: dict[str, Case] = {
    "as it is": Case(W, ["stored"]),
    "in another order": Case(W.transpose(0, 2, 3, 1), ["transpose", "stored"]),
    "in another shape": Case(W.reshape(4, 12), ["reshape", "stored"]),
    "in half precision": Case(W.astype(np.float16), ["cast", "stored"]),
    "in half precision, in another order": Case(
        SQUARE.T.astype(np.float16), ["cast", "transpose", "stored"]
    ),
    "too large for half precision": Case(
        np.array([1.0, -65504.0, 0.0, 3.0, 4.0], np.float16), ["cast", "clip", "stored"]
    ),
    "zeros": Case(np.zeros(7, np.float32), ["zeros"]),
    "zero points": Case(np.zeros(7, np.int8), ["zeros"]),
    "a scale for each channel": Case(SCALES, _SCALE),
    "a scale for each column": Case(scale_of(SQUARE, 1), _SCALE),
    "int8 for each channel": Case(
        _quantized(W, SCALES, 0), ["quantize", "stored", *_SCALE], Steps(SCALES, 0)
    ),
    "int8 of the transposed": Case(
        _quantized(SQUARE.T, scale_of(SQUARE, 0), 1),
        ["quantize", "transpose", "stored", *_SCALE],
        Steps(scale_of(SQUARE, 0), 1),
    ),
    "int8 in another order and shape": Case(
        _quantized(W.transpose(1, 2, 3, 0)[None], SCALES, 4),
        ["quantize", "reshape", "transpose", "stored", *_SCALE],
        Steps(SCALES, 4),
    ),
    "int8 of one scale": Case(
        _quantized(W, scale_of(W, None), None),
        ["quantize", "stored", *_SCALE],
        Steps(scale_of(W, None), None),
    ),
    "int8 of other scales": Case(
        _quantized(W, ADJUSTED, 0), ["quantize", "stored", "added"], Steps(ADJUSTED, 0)
    ),
    "int32 of products": Case(
        _quantized(BIAS, PRODUCT, 0, "int32"),
        ["quantize", "stored", "scale", *_SCALE, "added"],
        Steps(PRODUCT, 0, FACTOR),
    ),
    "int32 in double precision": Case(
        _quantized(BIAS, FINE.astype(np.float64), 0, "int32"),
        ["quantize", "stored", "cast", "scale", *_SCALE, "added"],
        Steps(FINE, 0, FACTOR / 1e3),
    ),
    "int32 of one product": Case(
        _quantized(BIAS, scale_of(W, None) * np.float32(FACTOR), None, "int32"),
        ["quantize", "stored", "scale", "reshape", *_SCALE, "added"],
        Steps((scale_of(W, None) * np.float32(FACTOR)).reshape(1), None, FACTOR),
    ),
}


def _explained(case: Case, level: LevelProgram, name: str = "made") -> Constant:
    array = np.ascontiguousarray(case.array).reshape(case.array.shape)
    (constant,) = explain([FoundConstant(name, 3, array, case.steps)], level)
    return constant


@pytest.mark.parametrize("case", EXPLAINED.values(), ids=EXPLAINED)
def test_what_was_done_to_a_tensor_is_found(case: Case, level: LevelProgram) -> None:
    constant = _explained(case, level)
    assert constant.expression is not None
    assert _operations(constant.expression) == case.operations
    found = evaluate(constant.expression, TENSORS)
    assert found.tobytes() == case.array.tobytes()
    assert (constant.dtype, constant.shape) == (case.array.dtype.name, case.array.shape)
    assert found.dtype == case.array.dtype


_OTHER = _quantized(W, SCALES, 0)
_OTHER[0, 0, 0, 0] += 1
UNEXPLAINED: dict[str, Case] = {
    "numbers of its own": Case(np.array([0.5, 0.25], np.float32), []),
    "one number": Case(np.array(0.5, np.float32), []),
    "a shape": Case(np.array([1, 4], np.int64), []),
    "a shape of zeros": Case(np.array([0, 0], np.int64), []),
    "the scale of an activation": Case(np.array(FACTOR, np.float32), []),
    "nothing": Case(np.zeros(0, np.float32), []),
    "whole numbers of nobody's": Case(_OTHER, [], Steps(SCALES, 0)),
    "a weight that differs in its last entry": Case(np.append(W.ravel()[:-1], 9.0), []),
    "codes as numbers": Case(TENSORS["codes"].astype(np.float32), []),
}


@pytest.mark.parametrize("case", UNEXPLAINED.values(), ids=UNEXPLAINED)
def test_what_comes_from_no_tensor_has_no_expression(case: Case, level: LevelProgram) -> None:
    assert _explained(case, level).expression is None


@pytest.mark.parametrize("name", ["conv.bias", "same.bias"])
def test_of_equal_tensors_the_one_that_the_constant_is_named_after_is_meant(
    name: str, level: LevelProgram
) -> None:
    constant = _explained(Case(BIAS.astype(np.float16), []), level, f"{name}_half")
    assert constant.expression is not None
    assert constant.expression.inputs == (stored(name),)


def test_scales_of_biases_are_known_from_the_biases(level: LevelProgram) -> None:
    biases = _quantized(BIAS, PRODUCT, 0, "int32")
    scale, bias = explain(
        [
            FoundConstant("scale", 0, PRODUCT),
            FoundConstant("bias", 16, biases, Steps(PRODUCT, 0, FACTOR)),
        ],
        level,
    )
    assert (scale.name, bias.name) == ("scale", "bias")
    assert scale.expression is not None
    assert bias.expression is not None
    assert bias.expression.inputs[1] == scale.expression


def test_a_constant_that_its_expression_does_not_give_is_named(level: LevelProgram) -> None:
    content = b"abc" + W.tobytes()
    constants = (_explained(Case(W, []), level), _explained(UNEXPLAINED["a shape"], level))
    assert check_constants(constants, content, TENSORS) == []
    assert check_constants(constants, b"d" + content, TENSORS) == ["made"]
