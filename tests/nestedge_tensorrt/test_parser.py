from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from nestedge.errors import ConversionError, NestedgeError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.engine import VERSIONS
from nestedge_tensorrt.parser import LATER, OLDEST_OPERATORS, OPERATORS, check_ranks, first_version

X = TensorInfo("x", (1, 3), "float32")


def _first(*operators: str, tensors: tuple[TensorInfo, ...] = (X,)) -> str:
    nodes = [helper.make_node(name, ["x"], ["y"], f"the_{name}") for name in operators]
    graph = helper.make_graph(nodes, "g", [], [])
    opsets = [helper.make_opsetid("", 17)]
    return first_version(helper.make_model(graph, opset_imports=opsets), tensors)


@pytest.mark.parametrize(
    ("operators", "version"),
    [
        (("Conv", "Relu", "Gemm"), "8.5"),
        (("Conv", "LayerNormalization", "Relu"), "8.6"),
        (("Hardmax", "LayerNormalization"), "9.2"),
        ((), "8.5"),
    ],
)
def test_the_version_is_the_newest_that_an_operator_needs(
    operators: tuple[str, ...], version: str
) -> None:
    assert _first(*operators) == version


def test_inputs_of_int64_need_tensorrt_10() -> None:
    assert _first("Gather", tensors=(X, TensorInfo("tokens", (1, 5), "int64"))) == "10.0"


@pytest.mark.parametrize("dtype", ["float64", "int8", "int16", "uint32"])
def test_an_input_that_tensorrt_does_not_take_is_named(dtype: str) -> None:
    with pytest.raises(NestedgeError, match=f"takes and gives float32, .*; 'given' is {dtype}"):
        _first(tensors=(X, TensorInfo("given", (1,), dtype)))


def test_an_operator_that_no_version_parses_is_named() -> None:
    with pytest.raises(
        NestedgeError, match=r"TensorRT cannot parse BitShift \('the_BitShift'\): it has no such"
    ):
        _first("Relu", "BitShift")


def test_every_operator_is_one_of_onnx() -> None:
    known = {schema.name for schema in defs.get_all_schemas_with_history() if not schema.domain}
    assert known >= OPERATORS | LATER.keys()
    assert not OPERATORS & LATER.keys()
    assert set(LATER.values()) < set(VERSIONS)


@pytest.mark.parametrize(
    ("opset", "operators", "version"),
    [(13, ("Conv", "Relu"), "8.2"), (17, ("Conv", "Relu"), "8.5"), (13, ("IsInf",), "8.6")],
)
def test_what_is_of_opset_13_is_parsed_by_the_oldest(
    opset: int, operators: tuple[str, ...], version: str
) -> None:
    nodes = [helper.make_node(name, ["x"], ["y"]) for name in operators]
    graph = helper.make_graph(nodes, "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    assert first_version(model, (X,)) == version


def test_the_oldest_has_fewer_operators() -> None:
    assert OLDEST_OPERATORS < OPERATORS
    assert not {"HardSwish", "Trilu", "OneHot"} & OLDEST_OPERATORS


def _reshaped(shape: list[int]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["wide"], "the_reshape"),
        helper.make_node("Flatten", ["wide"], ["y"], "the_end"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(shape, np.int64), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_tensor_of_more_than_eight_dimensions_is_refused_by_its_operator() -> None:
    check_ranks(_reshaped([1] * 7 + [4]))
    with pytest.raises(
        ConversionError,
        match=r"at most 8 dimensions; 'wide' of Reshape \('the_reshape'\) has 9; join .*reshape",
    ) as caught:
        check_ranks(_reshaped([1] * 8 + [4]))
    assert caught.value.diagnosis.code == "too-many-dimensions"
    assert caught.value.diagnosis.operator == "Reshape"
