"""A program as JSON data, and back: strictly, since it is data from outside that says what runs.

Nothing of it is ever evaluated: an operator is a name of the allow-list, an argument is a value, a
stored tensor, a number, a word that the operator's schema asks for, or a list of those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError, did_you_mean
from nestedge.program.graph import Argument, InputSpec, Node, Program, Ref, TensorSpec, Weight
from nestedge.program.signature import Signature, signature_of
from nestedge.program.structure import Structure, from_json, to_json

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
}
"""Every dtype that a program may name, by name."""

_NOT_JSON = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def program_to_json(program: Program) -> dict[str, Any]:
    """A program as JSON data; lists keep every order that matters.

    Raises:
        UsageError: it holds something that the format has no place for.
    """
    return {
        "inputs": [
            {"name": spec.name, "shape": list(spec.shape), "dtype": dtype_name(spec.dtype)}
            for spec in program.inputs
        ],
        "arguments": to_json(program.arguments),
        "nodes": [_node_to_json(node) for node in program.nodes],
        "outputs": [[name, _argument_to_json(leaf)] for name, leaf in program.outputs],
        "results": to_json(program.results),
        "tensors": [
            {
                "name": name,
                "shape": list(spec.shape),
                "dtype": dtype_name(spec.dtype),
                "role": spec.role,
            }
            for name, spec in program.tensors.items()
        ],
        "modules": [[path, kind] for path, kind in program.modules.items()],
    }


def _node_to_json(node: Node) -> dict[str, Any]:
    return {
        "op": node.op,
        "args": [_argument_to_json(argument) for argument in node.args],
        "kwargs": {key: _argument_to_json(argument) for key, argument in node.kwargs.items()},
        "outputs": list(node.outputs),
        "scope": node.scope,
    }


def _argument_to_json(argument: Argument) -> Any:
    if isinstance(argument, Ref):
        return {"value": argument.name}
    if isinstance(argument, Weight):
        return {"tensor": argument.name}
    if isinstance(argument, tuple):
        return [_argument_to_json(item) for item in argument]
    if isinstance(argument, torch.dtype):
        return {"dtype": dtype_name(argument)}
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    if argument is None or type(argument) in (bool, int, float, str):
        return argument
    raise UsageError(f"a .nest has no place for the argument {argument!r:.60} of an operator")


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype in a file.

    Raises:
        UsageError: a program may not name it.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"a .nest holds no {name}, only {', '.join(DTYPES)}; convert it first")
    return name


def program_from_json(value: Value) -> Program:
    """The program in JSON data.

    Raises:
        FormatError: a field is missing, unknown or wrong, an operator is not allowed, or a name is
            read before it is defined; the message names the place.
    """
    try:
        return _read_program(value)
    except RecursionError as error:
        raise FormatError(f"{value.where}: lists are nested too deeply") from error


def _read_program(value: Value) -> Program:
    names = ("inputs", "arguments", "nodes", "outputs", "results", "tensors", "modules")
    inputs, arguments, nodes, outputs, results, tensors, modules = value.fields(*names)
    specs = _read_tensors(tensors)
    reader = _Reader(frozenset(specs))
    program = Program(
        inputs=tuple(reader.read_input(item) for item in inputs.elements()),
        arguments=_read_structure(arguments),
        nodes=tuple(reader.read_node(item) for item in nodes.elements()),
        outputs=tuple(reader.read_output(item) for item in outputs.elements()),
        results=_read_structure(results),
        tensors=specs,
        modules=_read_modules(modules),
    )
    if program.arguments.kind != "dict":
        raise arguments.error("a dict of forward's arguments")
    _check_leaves(arguments, program.arguments, [spec.name for spec in program.inputs])
    _check_leaves(results, program.results, [name for name, _ in program.outputs])
    return program


def _read_tensors(value: Value) -> dict[str, TensorSpec]:
    found: dict[str, TensorSpec] = {}
    for item in value.elements():
        name, shape, dtype, role = item.fields("name", "shape", "dtype", "role")
        if name.string() in found:
            raise FormatError(f"{name.where}: the name {name.string()!r} stands twice")
        sizes = tuple(size.integer(minimum=0) for size in shape.elements())
        found[name.string()] = TensorSpec(
            sizes, _read_dtype(dtype), role.choice("parameter", "buffer", "constant")
        )
    return found


def _read_dtype(value: Value) -> torch.dtype:
    name = value.string()
    if name not in DTYPES:
        raise value.error(f"one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _read_structure(value: Value) -> Structure:
    return from_json(value.data, path=value.where)


def _read_modules(value: Value) -> dict[str, str]:
    found = {}
    for item in value.elements():
        path, kind = _pair(item)
        found[path.string()] = kind.string()
    return found


def _pair(value: Value) -> tuple[Value, Value]:
    elements = value.elements()
    if len(elements) != 2:
        raise value.error("a pair")
    return elements[0], elements[1]


def _check_leaves(value: Value, structure: Structure, names: list[str]) -> None:
    found = list(structure.names())
    if found != names:
        raise FormatError(f"{value.where}: expected the tensors {names}, found {found}")


@dataclass
class _Reader:
    """Reads the nodes of one program in order; lives for one `program_from_json`.

    Attributes:
        tensors: the stored tensors that the program declares.
        values: the values defined so far.
    """

    tensors: frozenset[str]
    values: set[str] = field(default_factory=set)

    def read_input(self, value: Value) -> InputSpec:
        name, shape, dtype = value.fields("name", "shape", "dtype")
        # Only axis 0 may be the batch.
        sizes = tuple(
            None if axis == 0 and size.data is None else size.integer(minimum=0)
            for axis, size in enumerate(shape.elements())
        )
        return InputSpec(self._define(name), sizes, _read_dtype(dtype))

    def read_node(self, value: Value) -> Node:
        op, args, kwargs, outputs, scope = value.fields("op", "args", "kwargs", "outputs", "scope")
        signature = _read_operator(op)
        given = signature.bind(args, kwargs)
        positional = len(args.elements())
        read = [
            (name, self._read_argument(item, words=name in signature.words))
            for name, item in given.items()
        ]
        names = tuple(
            None if item.data is None else self._define(item) for item in outputs.elements()
        )
        if not names or signature.outputs not in (None, len(names)):
            raise outputs.error(f"{signature.outputs or 'one or more'} names")
        arguments = tuple(argument for _, argument in read[:positional])
        return Node(op.string(), arguments, dict(read[positional:]), names, scope.string())

    def read_output(self, value: Value) -> tuple[str, Ref | Weight]:
        name, leaf = _pair(value)
        argument = self._read_argument(leaf)
        if not isinstance(argument, (Ref, Weight)):
            raise leaf.error("a value or a tensor")
        return name.string(), argument

    def _define(self, value: Value) -> str:
        name = value.string()
        if name in self.values:
            raise FormatError(f"{value.where}: the name {name!r} is taken; names are unique")
        self.values.add(name)
        return name

    def _read_argument(self, value: Value, *, words: bool = False) -> Argument:
        data = value.data
        if isinstance(data, dict):
            return self._read_tagged(value)
        if isinstance(data, list):
            return tuple(self._read_argument(item, words=words) for item in value.elements())
        if isinstance(data, str) and not words:
            raise value.error("a number, a value or a tensor (an expression is never evaluated)")
        return value.number() if isinstance(data, float) else data

    def _read_tagged(self, value: Value) -> Argument:
        ((kind, item), *more) = value.members().items() or ((None, value),)
        if kind not in ("value", "tensor", "dtype", "float") or more:
            raise value.error("one of value, tensor, dtype, float")
        name = item.string()
        if kind == "value":
            return Ref(_known(item, name, self.values, "a value that is defined before"))
        if kind == "tensor":
            return Weight(_known(item, name, self.tensors, "a tensor that the program declares"))
        return _read_dtype(item) if kind == "dtype" else _NOT_JSON[item.choice(*_NOT_JSON)]


def _known(value: Value, name: str, known: Iterable[str], expected: str) -> str:
    if name not in known:
        raise FormatError(
            f"{value.where}: expected {expected}, found {name!r}{did_you_mean(name, known)}"
        )
    return name


def _read_operator(value: Value) -> Signature:
    op = value.string()
    try:
        return signature_of(op)
    except FormatError as error:
        raise FormatError(f"{value.where}: {error}") from error
