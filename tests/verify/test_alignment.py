from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from nestedge.plugins import Array
from nestedge.verify import Trace, TracedOperator
from nestedge.verify.alignment import align_by_name, align_by_value

_RNG = np.random.default_rng(0)


def _trace(
    operators: list[tuple[str, str, str]],
    values: Mapping[str, Array],
    *,
    modules: Mapping[str, str] | None = None,
) -> Trace:
    """Operators of a kind, an input and an output each; the last output is that of the network."""
    modules = modules or {}
    return Trace(
        operators=tuple(
            TracedOperator(
                kind=kind,
                name=f"node_{output}",
                inputs=(given,),
                outputs=(output,),
                constants=(f"{modules[output]}.weight",) if output in modules else (),
                module=modules.get(output, ""),
            )
            for kind, given, output in operators
        ),
        values=values,
        inputs={"x": operators[0][1]},
        outputs={"y": operators[-1][2]},
    )


def _array(*shape: int) -> npt.NDArray[np.float64]:
    return _RNG.standard_normal(shape)


@pytest.mark.parametrize(
    "name",
    [
        *("a", "a_QuantizeLinear_Input", "a_DequantizeLinear_Output", "a_cast_to_fp16"),
        *("a_quantized", "a_dequant", "a_quantized_dequant"),
    ],
)
def test_a_value_that_a_tool_renamed_has_the_counterpart_of_the_old_name(name: str) -> None:
    a = _array(1, 4)
    reference = _trace([("Conv", "x", "a"), ("Gemm", "a", "y")], {"a": a})
    trace = _trace([("Conv", "x", name), ("Gemm", name, "y")], {name: a})
    assert align_by_name(trace, reference).expected[name] is a


def test_inputs_and_outputs_are_paired_by_the_names_of_the_network() -> None:
    values = {name: _array(1, 4) for name in "xay"}
    reference = _trace([("Conv", "x", "a"), ("Gemm", "a", "y")], values)
    renamed = {"given": values["x"], "b": values["a"], "found": values["y"]}
    trace = _trace([("Conv", "given", "b"), ("Gemm", "b", "found")], renamed)
    found = align_by_name(trace, reference).expected
    assert found.keys() == {"given", "found"}
    assert found["found"] is values["y"]


def test_a_value_of_another_shape_is_no_counterpart() -> None:
    reference = _trace([("Conv", "x", "a"), ("Gemm", "a", "y")], {"a": _array(1, 4)})
    trace = _trace([("Conv", "x", "a"), ("Gemm", "a", "y")], {"a": _array(1, 5)})
    assert align_by_name(trace, reference).expected == {}


def test_a_layer_without_its_activation_is_compared_with_what_comes_before_it() -> None:
    raw = _array(1, 4)
    reference = _trace(
        [("Conv", "x", "raw"), ("Relu", "raw", "relu"), ("Gemm", "relu", "y")],
        {"raw": raw, "relu": np.maximum(raw, 0)},
    )
    # The name is that of what the activation gave, the clipping is that of the 8-bit numbers.
    trace = _trace(
        [("Conv", "x", "relu"), ("QuantizeLinear", "relu", "q"), ("Gemm", "q", "y")],
        {"relu": raw},
    )
    assert align_by_name(trace, reference).expected["relu"] is raw


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["first", "last"])
def test_a_value_is_known_by_its_numbers_wherever_its_channels_are(axes: tuple[int, ...]) -> None:
    a, other, y = _array(1, 4, 3, 3), _array(1, 4, 3, 3), _array(1, 2)
    kinds = [("conv", "x", "a"), ("conv", "a", "other"), ("linear", "other", "y")]
    reference = _trace(kinds, {"a": a, "other": other, "y": y}, modules={"a": "stem"})
    moved = np.transpose(a, axes) + 1e-7
    trace = _trace([("CONV", "x", "t1"), ("FC", "t1", "t2")], {"t1": moved, "t2": y})
    found = align_by_value(trace, reference, modules={}, tolerance=1e-5)
    assert np.array_equal(found.expected["t1"], np.transpose(a, axes))
    assert found.modules["t1"] == "stem"


def test_what_no_value_equals_is_compared_with_what_its_layer_gives() -> None:
    raw, y = _array(1, 4, 3, 3), _array(1, 2)
    relu = np.maximum(raw, 0)
    reference = _trace(
        [("conv", "x", "raw"), ("relu", "raw", "relu"), ("linear", "relu", "y")],
        {"raw": raw, "relu": relu, "y": y},
        modules={"raw": "stem"},
    )
    wrong = relu * 1.5
    trace = _trace([("CONV", "x", "t1"), ("FC", "t1", "t2")], {"t1": wrong, "t2": y * 2})
    found = align_by_value(trace, reference, modules={"node_t1": "stem"}, tolerance=1e-5)
    # Its activation is part of it: that is nearer.
    assert np.array_equal(found.expected["t1"], relu)
    assert np.array_equal(found.expected["t2"], y)


def test_what_leads_to_a_right_value_is_not_compared_with_another() -> None:
    a, b, y = _array(1, 4), _array(1, 4), _array(1, 2)
    reference = _trace(
        [("linear", "x", "a"), ("linear", "a", "b"), ("linear", "b", "y")],
        {"a": a, "b": b, "y": y},
        modules={"a": "first"},
    )
    # A factor was moved from one layer into the next.
    trace = _trace(
        [("FC", "x", "t1"), ("FC", "t1", "t2"), ("FC", "t2", "t3")],
        {"t1": a * 2, "t2": b, "t3": y},
    )
    found = align_by_value(trace, reference, modules={"node_t1": "first"}, tolerance=1e-5)
    assert found.expected.keys() == {"t2", "t3"}
