from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import FormatError
from nestedge.expressions import (
    OPERATIONS,
    Expression,
    added,
    applied,
    batch_norm_scale,
    cast,
    clipped,
    evaluate,
    from_json,
    masked,
    quantization_scale,
    quantized,
    reshaped,
    scaled,
    shifted,
    signed,
    stepped,
    stored,
    summed,
    take,
    to_json,
    transposed,
    zeros,
)

Array = npt.NDArray[Any]

_RNG = np.random.default_rng(0)
TENSORS: dict[str, Array] = {
    "w": _RNG.standard_normal((4, 3)).astype(np.float32),
    "codes": np.arange(12, dtype=np.uint8).reshape(4, 3) % 3,
    "mean": _RNG.standard_normal(4).astype(np.float32),
    "var": (_RNG.random(4) + 0.5).astype(np.float32),
    "gamma": _RNG.standard_normal(4).astype(np.float32),
    "whole": np.array([[1, 2, 0], [1, 0, 0]], np.float32),
    "vector": np.array([1, 2, 3], np.float32),
    "beta": _RNG.standard_normal(4).astype(np.float32),
}
W, VAR, GAMMA, BETA, MEAN = (stored(n) for n in ("w", "var", "gamma", "beta", "mean"))
_W, _FACTOR = TENSORS["w"], 1 / np.sqrt(TENSORS["var"].astype(np.float64) + 1e-3)
_SCALE = _FACTOR * TENSORS["gamma"].astype(np.float64)
_BIAS, _MEAN = TENSORS["beta"].astype(np.float64), TENSORS["mean"].astype(np.float64)
_WHOLE, _VECTOR = stored("whole"), stored("vector")
SCALE = batch_norm_scale(GAMMA, VAR, 1e-3)
_ONE_SCALE = np.array(np.abs(_W).max() / np.float32(127))
_ROW_SCALES = np.array([np.abs(row).max() / np.float32(127) for row in _W])


def _in_steps(scale: Array) -> Array:
    """The tensor "w" in int8; nothing of it is out of range."""
    return np.round(_W / scale).astype(np.int8)


EVALUATED: dict[str, tuple[Expression, Array]] = {
    "stored": (W, _W),
    "zeros": (zeros((2, 3), "float32"), np.zeros((2, 3), np.float32)),
    "take": (take(W, 0, ((1, 3),)), _W[1:3]),
    "take of two": (take(W, 0, ((0, 1), (2, 4))), _W[[0, 2, 3]]),
    "take of columns": (take(W, 1, ((0, 1), (2, 3))), _W[:, [0, 2]]),
    "take of nothing whole": (take(W, 1, ((0, 3),)), _W),
    "mask": (masked(W, stored("codes"), (1, 2)), np.where(TENSORS["codes"] > 0, _W, 0)),
    "mask of none": (masked(W, stored("codes"), ()), np.zeros_like(_W)),
    "batch_norm_scale": (SCALE, _SCALE),
    "batch_norm_scale without weight": (batch_norm_scale(None, VAR, 1e-3), _FACTOR),
    "scale": (scaled(W, SCALE, 0), (_W.astype(np.float64) * _SCALE[:, None]).astype(np.float32)),
    "shift": (shifted(None, MEAN, SCALE, None), (-_MEAN * _SCALE).astype(np.float32)),
    "shift with bias": (
        shifted(GAMMA, MEAN, SCALE, None),
        ((TENSORS["gamma"].astype(np.float64) - _MEAN) * _SCALE).astype(np.float32),
    ),
    "shift with both": (
        shifted(GAMMA, MEAN, SCALE, BETA),
        ((TENSORS["gamma"].astype(np.float64) - _MEAN) * _SCALE + _BIAS).astype(np.float32),
    ),
    "shift with shift": (
        shifted(None, MEAN, SCALE, BETA),
        (-_MEAN * _SCALE + _BIAS).astype(np.float32),
    ),
    "added": (
        added(GAMMA, [1.0, 2.0, 3.0, 0.1], "float32"),
        (TENSORS["gamma"].astype(np.float64) + np.array([1.0, 2.0, 3.0, 0.1])).astype(np.float32),
    ),
    "added to nothing": (added(None, [0.1, 0.2], "float32"), np.array([0.1, 0.2], np.float32)),
    "sum": (
        summed(GAMMA, SCALE),
        (TENSORS["gamma"].astype(np.float64) + _SCALE).astype(np.float32),
    ),
    "apply": (applied(_WHOLE, _VECTOR, None), np.array([5, 1], np.float32)),
    "apply with bias": (
        applied(_WHOLE, _VECTOR, zeros((2,), "float32")),
        np.array([5, 1], np.float32),
    ),
    "clip": (clipped(W, -0.5, 0.25), np.clip(_W, np.float32(-0.5), np.float32(0.25))),
    "quantization_scale": (quantization_scale(W, None), _ONE_SCALE),
    "quantization_scale along rows": (quantization_scale(W, 0), _ROW_SCALES),
    "quantize": (quantized(W, quantization_scale(W, None), None, "int8"), _in_steps(_ONE_SCALE)),
    "quantize along rows": (
        quantized(W, quantization_scale(W, 0), 0, "int8"),
        _in_steps(_ROW_SCALES[:, None]),
    ),
    "quantize in double precision": (
        quantized(W, cast(added(None, [1e-8], "float32"), "float64"), None, "int32"),
        np.round(_W / np.array([1e-8], np.float32).astype(np.float64)).astype(np.int32),
    ),
    "sign": (
        signed(quantized(W, quantization_scale(W, 0), 0, "int8"), GAMMA, 0),
        _in_steps(_ROW_SCALES[:, None]) * np.sign(TENSORS["gamma"]).astype(np.int8)[:, None],
    ),
    "step": (
        stepped(quantization_scale(W, 0), GAMMA),
        (_ROW_SCALES.astype(np.float64) * np.abs(TENSORS["gamma"])).astype(np.float32),
    ),
    "step of nothing": (
        stepped(stored("vector"), zeros((3,), "float32")),
        np.ones(3, np.float32),
    ),
    "cast": (cast(SCALE, "float32"), _SCALE.astype(np.float32)),
    "transpose": (transposed(W, (1, 0)), _W.T),
    "reshape": (reshaped(W, (2, 6)), _W.reshape(2, 6)),
}


@pytest.mark.parametrize(("expression", "expected"), list(EVALUATED.values()), ids=list(EVALUATED))
def test_an_expression_gives_its_array_to_the_bit(expression: Expression, expected: Array) -> None:
    found = evaluate(expression, TENSORS)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("expression", [e for e, _ in EVALUATED.values()], ids=list(EVALUATED))
def test_an_expression_survives_json(expression: Expression) -> None:
    text = json.dumps(to_json(expression))
    back = from_json(json.loads(text), path="constant")
    assert to_json(back) == to_json(expression)
    assert evaluate(back, TENSORS).tobytes() == evaluate(expression, TENSORS).tobytes()


def test_every_operation_is_evaluated_here() -> None:
    assert {e.op for e, _ in EVALUATED.values()} == {*OPERATIONS, "stored"}


@given(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), st.sampled_from([0, 1]))
def test_taking_is_indexing(rows: list[bool], dim: int) -> None:
    live = np.array(rows[: _W.shape[dim]])
    intervals = tuple((int(i), int(i) + 1) for i in np.flatnonzero(live))
    if intervals:
        found = evaluate(take(W, dim, intervals), TENSORS)
        assert np.array_equal(found, np.compress(live, _W, axis=dim))


def test_unknown_tensors_and_operations_are_refused() -> None:
    with pytest.raises(FormatError, match="needs tensor 'x', which the file does not have"):
        evaluate(stored("x"), TENSORS)
    with pytest.raises(FormatError, match=r"needs operation 'eval'; known: \['added'"):
        evaluate(Expression("eval", (W,)), TENSORS)


WRONG: dict[str, tuple[Any, str]] = {
    "a list": ([], "c: expected an expression with an op, found list"),
    "no op": ({"inputs": []}, "c: expected an expression with an op"),
    "op of a number": ({"op": 1}, "c: expected an expression with an op"),
    "unknown": ({"op": "eval"}, r"c\.op: expected one of .*found 'eval'"),
    "inside": ({"op": "cast", "inputs": [{"op": "eval"}]}, r"c\.inputs\.0\.op: expected one of"),
}


@pytest.mark.parametrize(("data", "message"), list(WRONG.values()), ids=list(WRONG))
def test_what_is_no_expression_is_refused_with_its_place(data: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        from_json(data, path="c")
