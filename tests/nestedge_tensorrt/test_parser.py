from __future__ import annotations

import pytest
from onnx import defs, helper

from nestedge.errors import NestedgeError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.engine import VERSIONS
from nestedge_tensorrt.parser import LATER, OPERATORS, first_version

X = TensorInfo("x", (1, 3), "float32")


def _first(*operators: str, tensors: tuple[TensorInfo, ...] = (X,)) -> str:
    nodes = [helper.make_node(name, ["x"], ["y"], f"the_{name}") for name in operators]
    return first_version(helper.make_model(helper.make_graph(nodes, "g", [], [])), tensors)


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
