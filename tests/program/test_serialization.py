from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nestedge.documents import parse_json
from nestedge.errors import FormatError, UsageError
from nestedge.program.capture import capture
from nestedge.program.graph import InputSpec, Node, Program, Ref, TensorSpec, Weight
from nestedge.program.operators import ALLOWED
from nestedge.program.serialization import DTYPES, program_from_json, program_to_json
from nestedge.program.signature import signature_of
from nestedge.program.structure import Structure
from tests.json_changes import Json, places, put


def _text(data: Json) -> bytes:
    return json.dumps(data, allow_nan=False).encode()


def _read(data: Json) -> Program:
    return program_from_json(parse_json(_text(data), document="program.json"))


def _program(*nodes: Node, output: str = "input") -> Program:
    tensors = {
        "weight": TensorSpec((4, 4), torch.float32, "parameter"),
        "count": TensorSpec((), torch.int64, "buffer"),
    }
    return Program(
        inputs=(InputSpec("input", (None, 4), torch.float32),),
        arguments=Structure("dict", keys=("input",), items=(Structure("tensor", name="input"),)),
        nodes=nodes,
        outputs=(("output", Ref(output)),),
        results=Structure("tensor", name="output"),
        tensors=tensors,
        modules={"": "Net", "b": "Linear", "a": "Linear"},
    )


def _node(op: str, *args: object, output: str = "y", **kwargs: object) -> Node:
    return Node(op, args, kwargs, (output,), "a.b")


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding="same")
        self.norm = nn.BatchNorm2d(8)

    def forward(self, image: torch.Tensor, more: dict[str, Any]) -> dict[str, Any]:
        x = F.pad(self.norm(self.conv(image)), (1, 1, 1, 1), value=-math.inf)
        x = F.gelu(F.max_pool2d(x, 2), approximate="tanh")
        first, second = torch.split_with_sizes(x.flatten(1), [200, 88], dim=1)
        total = (first.to(torch.float64) * more["by"].double()).sum(1)
        return {"all": [total, second.max(dim=1).values], "zero": torch.zeros(x.shape[0])}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_captured_program_comes_back_the_same(training: bool) -> None:
    inputs = (torch.randn(2, 3, 10, 10), {"by": torch.randn(2, 1), "rest": [None, 1.0]})
    program = capture(_Net().train(training), inputs).program
    assert _read(program_to_json(program)) == program


def test_the_order_of_tensors_and_modules_is_kept() -> None:
    again = _read(program_to_json(_program()))
    assert list(again.tensors) == ["weight", "count"]
    assert list(again.modules) == ["", "b", "a"]


def test_lines_of_the_users_code_are_not_saved() -> None:
    node = Node("aten.relu.default", (Ref("input"),), {}, ("y",), line="secret.py:1")
    assert "secret" not in json.dumps(program_to_json(_program(node)))


@pytest.mark.parametrize(
    "number", [1.0, -0.0, 1e300, 5e-324, 0.1, 1e16, math.inf, -math.inf], ids=str
)
def test_a_float_stays_the_same_float(number: float) -> None:
    node = _node("aten.mul.Scalar", Ref("input"), number)
    (again,) = _read(program_to_json(_program(node))).nodes
    assert type(again.args[1]) is float
    assert again.args[1].hex() == number.hex()


def test_nan_stays_nan() -> None:
    node = _node("aten.full.default", (2,), math.nan)
    (again,) = _read(program_to_json(_program(node))).nodes
    assert math.isnan(again.args[1])


@pytest.mark.parametrize(
    ("value", "kind"), [(1, int), (True, bool), (1.0, float), (None, type(None))], ids=str
)
def test_a_scalar_keeps_its_type(value: object, kind: type) -> None:
    node = _node("aten.add.Scalar", Ref("input"), value)
    assert type(_read(program_to_json(_program(node))).nodes[0].args[1]) is kind


@pytest.mark.parametrize("argument", [1j, torch.device("cpu"), {1}, torch.complex64, [1]], ids=repr)
def test_an_argument_without_a_place_in_the_format_is_not_saved(argument: object) -> None:
    with pytest.raises(UsageError, match=r"a \.nest (has no place for|holds no complex64)"):
        program_to_json(_program(_node("aten.add.Scalar", Ref("input"), argument)))


_ADD = _node("aten.add.Tensor", Ref("input"), Weight("weight"), alpha=1)
_EXPAND = _node("aten.expand.default", Ref("y"), (-1, 4), output="z")
_BAD: dict[str, tuple[Callable[[Json], None], str]] = {
    "operator": (
        put("nodes", 1, "op", to="aten.foo.default"),
        r"nodes\[1\]\.op: operator 'aten.foo.default' is not allowed",
    ),
    "close operator": (
        put("nodes", 1, "op", to="aten.expnd.default"),
        r"nodes\[1\]\.op: operator 'aten.expnd.default' is not allowed; did you mean 'aten.expand",
    ),
    "python name as operator": (
        put("nodes", 0, "op", to="os.system"),
        r"nodes\[0\]\.op: operator 'os.system' is not allowed$",
    ),
    "operator is no string": (put("nodes", 0, "op", to=1), r"nodes\[0\]\.op: expected a string"),
    "expression as a size": (
        put("nodes", 1, "args", 1, to=["s0*2", 4]),
        r'nodes\[1\]\.args\[1\]\[0\]: expected .*never evaluated\), found "s0\*2"$',
    ),
    "expression as an object": (
        put("nodes", 1, "args", 1, to=[{"expr": "s0*2"}, 4]),
        r"args\[1\]\[0\]: expected one of value, tensor, dtype, float",
    ),
    "object with two keys": (
        put("nodes", 0, "args", 0, to={"value": "input", "x": 1}),
        r"nodes\[0\]\.args\[0\]: expected one of value, tensor",
    ),
    "empty object": (put("nodes", 0, "args", 0, to={}), r"args\[0\]: expected one of value"),
    "value of a later node": (
        put("nodes", 0, "args", 0, to={"value": "z"}),
        r"nodes\[0\]\.args\[0\]\.value: expected a value that is defined before, found 'z'",
    ),
    "own value": (put("nodes", 0, "args", 0, to={"value": "y"}), "defined before, found 'y'"),
    "unknown tensor": (
        put("nodes", 0, "args", 1, to={"tensor": "wieght"}),
        r"args\[1\]\.tensor: expected a tensor .* found 'wieght'; did you mean 'weight'\?",
    ),
    "unknown dtype": (
        put("nodes", 0, "args", 1, to={"dtype": "complex64"}),
        r"args\[1\]\.dtype: expected one of bool, uint8",
    ),
    "unknown float": (
        put("nodes", 0, "args", 1, to={"float": "1.0"}),
        r'args\[1\]\.float: expected "inf" or "-inf" or "nan", found "1.0"',
    ),
    "too many arguments": (
        put("nodes", 0, "args", to=[1, 2, 3]),
        r"nodes\[0\]\.args: expected at most 2 arguments",
    ),
    "unknown keyword": (
        put("nodes", 0, "kwargs", to={"out": {"value": "input"}}),
        r"nodes\[0\]\.kwargs\.out: unknown; expected alpha",
    ),
    "argument given twice": (
        put("nodes", 0, "kwargs", to={"other": 1}),
        r"kwargs\.other: unknown; expected alpha",
    ),
    "name taken": (
        put("nodes", 1, "outputs", to=["y"]),
        r"nodes\[1\]\.outputs\[0\]: the name 'y' is taken",
    ),
    "name of an input": (put("nodes", 0, "outputs", to=["input"]), "the name 'input' is taken"),
    "two outputs of one": (
        put("nodes", 1, "outputs", to=["a", "b"]),
        r"nodes\[1\]\.outputs: expected 1 names",
    ),
    "no outputs": (put("nodes", 1, "outputs", to=[]), r"nodes\[1\]\.outputs: expected 1 names"),
    "node without scope": (
        put("nodes", 1, to={"op": "aten.relu.default", "args": [], "kwargs": {}, "outputs": []}),
        r"nodes\[1\]\.scope: missing",
    ),
    "output that is a number": (
        put("outputs", 0, 1, to=3),
        r"outputs\[0\]\[1\]: expected a value or a tensor",
    ),
    "output that is undefined": (put("outputs", 0, 1, to={"value": "q"}), "found 'q'"),
    "output of another name": (
        put("outputs", 0, 0, to="logits"),
        r"results: expected the tensors \['logits'\], found \['output'\]",
    ),
    "input of another name": (
        put("arguments", to={"dict": [["input", {"tensor": "image"}]]}),
        r"arguments: expected the tensors \['input'\], found \['image'\]",
    ),
    "arguments that are no dict": (
        put("arguments", to={"list": [{"tensor": "input"}]}),
        "arguments: expected a dict of forward's arguments",
    ),
    "batch on another axis": (
        put("inputs", 0, "shape", to=[2, None]),
        r"inputs\[0\]\.shape\[1\]: expected an integer",
    ),
    "negative size": (
        put("tensors", 0, "shape", 0, to=-1),
        r"tensors\[0\]\.shape\[0\]: expected an integer of at least 0, found -1",
    ),
    "tensor twice": (put("tensors", 1, "name", to="weight"), "the name 'weight' stands twice"),
    "unknown role": (
        put("tensors", 0, "role", to="module"),
        r'tensors\[0\]\.role: expected "parameter" or "buffer" or "constant"',
    ),
    "module without a class": (put("modules", 0, to=["a"]), r"modules\[0\]: expected a pair"),
    "unknown field": (put("code", to="import os"), r"^program\.json: code: unknown"),
    "deep lists": (
        put("nodes", 1, "args", 1, to=json.loads("[" * 700 + "]" * 700)),
        "nested too deeply|not JSON",
    ),
}


@pytest.mark.parametrize(("change", "message"), _BAD.values(), ids=_BAD)
def test_a_wrong_program_is_refused(change: Callable[[Json], None], message: str) -> None:
    data = program_to_json(_program(_ADD, _EXPAND, output="z"))
    _read(data)
    change(data)
    with pytest.raises(FormatError, match=message) as caught:
        _read(data)
    assert str(caught.value).startswith("program.json: ")
    assert "\n" not in str(caught.value)


def test_a_word_is_taken_only_where_the_operator_asks_for_one() -> None:
    good = _node("aten.div.Tensor_mode", Ref("input"), 2, rounding_mode="floor")
    assert _read(program_to_json(_program(good))).nodes == (good,)
    bad = _node("aten.div.Tensor_mode", Ref("input"), "floor", rounding_mode="floor")
    with pytest.raises(FormatError, match=r"nodes\[0\]\.args\[1\]: expected a number"):
        _read(program_to_json(_program(bad)))


def test_every_allowed_operator_has_a_signature() -> None:
    for op in sorted(ALLOWED):
        signature = signature_of(op)
        assert signature.outputs in (None, 1, 2, 3)
        assert len(signature.names) >= signature.positional >= 1


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from([*DTYPES.values(), Weight("weight"), Weight("count")]),
)


@st.composite
def _programs(draw: st.DrawFn) -> Program:
    """Programs that are well formed; what they compute makes no sense."""
    values, nodes = ["input"], []
    for index in range(draw(st.integers(0, 5))):
        signature = signature_of(op := draw(st.sampled_from(sorted(ALLOWED))))
        leaves = st.one_of(_SCALARS, st.sampled_from(values).map(Ref))
        arguments = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple))
        words = st.one_of(arguments, st.text(max_size=5))
        count = draw(st.integers(0, signature.positional))
        given = {n: words if n in signature.words else arguments for n in signature.names}
        args = [draw(given[name]) for name in signature.names[:count]]
        named = (
            draw(st.sets(st.sampled_from(signature.names[count:]))) if count < len(given) else ()
        )
        kwargs = {name: draw(given[name]) for name in sorted(named)}
        total = signature.outputs or draw(st.integers(1, 3))
        names = [f"n{index}.{i}" if draw(st.booleans()) else None for i in range(total)]
        values += [name for name in names if name is not None]
        nodes.append(Node(op, tuple(args), kwargs, tuple(names), draw(st.text(max_size=5))))
    return _program(*nodes, output=draw(st.sampled_from(values)))


@settings(max_examples=60, deadline=None)
@given(_programs())
def test_every_program_comes_back_the_same(program: Program) -> None:
    data = program_to_json(program)
    again = _read(data)
    assert again == program
    assert _text(program_to_json(again)) == _text(data)


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["value", "tensor", "dtype", "float", "expr"]), inner)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_program_changed_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(program_to_json(_program(_ADD, _EXPAND, output="z")))
    container, key = data.draw(st.sampled_from(places(document)))
    container[key] = data.draw(_JSON)
    with contextlib.suppress(FormatError):
        _read(document)
