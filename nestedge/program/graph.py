"""A network as a flat list of operators over named values and named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from nestedge.errors import NestedgeError
from nestedge.program.operators import CREATION, resolve
from nestedge.program.structure import Structure


@dataclass(frozen=True)
class Ref:
    """A value of the program: an input, or an output of a node."""

    name: str


@dataclass(frozen=True)
class Weight:
    """A parameter, buffer or constant of the network, by name."""

    name: str


Scalar = None | bool | int | float | str | torch.dtype
Argument = Any
"""A Ref, a Weight, a Scalar, or a tuple of arguments."""


@dataclass(frozen=True)
class TensorSpec:
    """A stored tensor: `role` is what the network's own module had it registered as."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    role: Literal["parameter", "buffer", "constant"]


@dataclass(frozen=True)
class InputSpec:
    """An input tensor; a dimension None is the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype

    def shape_at(self, batch: int) -> tuple[int, ...]:
        """The input's shape at a batch size."""
        return tuple(batch if size is None else size for size in self.shape)


@dataclass(frozen=True)
class Node:
    """One operator call.

    Attributes:
        op: an ATen overload name of the allow-list, or a `sym.` integer operator.
        args: positional arguments.
        kwargs: keyword arguments.
        outputs: the names of the values it gives; None for an output that nothing reads.
        scope: path of the module in whose forward the call stands.
        line: the line of the user's code, for messages; not saved.
    """

    op: str
    args: tuple[Argument, ...]
    kwargs: Mapping[str, Argument]
    outputs: tuple[str | None, ...]
    scope: str = ""
    line: str = field(default="", compare=False)

    @property
    def output(self) -> str:
        """The name of the only output."""
        (name,) = self.outputs
        assert name is not None
        return name

    def leaves(self) -> Iterator[Ref | Weight]:
        """Every Ref and Weight among the arguments, in order."""
        yield from _leaves(self.args)
        yield from _leaves(tuple(self.kwargs.values()))


@dataclass(frozen=True)
class Program:
    """A network as a flat graph.

    Attributes:
        inputs: the tensor inputs, in the order of `arguments`.
        arguments: the forward arguments as a dict structure; its leaves are the inputs.
        nodes: operator calls, each after those whose values it reads.
        outputs: for each output tensor its name and the value it is.
        results: the structure of what forward returns; its leaves are the outputs.
        tensors: every parameter, buffer and constant of the network by name.
        modules: class name of every module by path.
    """

    inputs: tuple[InputSpec, ...]
    arguments: Structure
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, Ref | Weight], ...]
    results: Structure
    tensors: Mapping[str, TensorSpec]
    modules: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def last_uses(self) -> list[tuple[str, ...]]:
        """For every node the values that nothing reads after it."""
        kept = {ref.name for _, ref in self.outputs}
        freed: list[tuple[str, ...]] = []
        for node in reversed(self.nodes):
            names = {leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)}
            names |= {name for name in node.outputs if name is not None}
            freed.append(tuple(sorted(names - kept)))
            kept |= names
        return freed[::-1]

    def used_tensors(self) -> set[str]:
        """The names of the tensors that some node or output reads."""
        read = {leaf.name for node in self.nodes for leaf in node.leaves() if is_weight(leaf)}
        return read | {ref.name for _, ref in self.outputs if is_weight(ref)}


def is_weight(leaf: Ref | Weight) -> bool:
    """Whether an argument is a stored tensor and not a value."""
    return isinstance(leaf, Weight)


def _leaves(argument: Argument) -> Iterator[Ref | Weight]:
    if isinstance(argument, (Ref, Weight)):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from _leaves(item)


def substitute(argument: Argument, change: Callable[[Ref | Weight], Argument]) -> Argument:
    """An argument with every Ref and Weight in it replaced by `change` of it."""
    if isinstance(argument, (Ref, Weight)):
        return change(argument)
    if isinstance(argument, tuple):
        return tuple(substitute(item, change) for item in argument)
    return argument


def bypassed(program: Program, instead: Mapping[str, Ref]) -> Program:
    """The program with some values read no more: for each, which value is read instead."""

    def follow(leaf: Ref | Weight) -> Ref | Weight:
        while isinstance(leaf, Ref) and leaf.name in instead:
            leaf = instead[leaf.name]
        return leaf

    nodes = tuple(
        replace(
            node,
            args=substitute(node.args, follow),
            kwargs={key: substitute(value, follow) for key, value in node.kwargs.items()},
        )
        for node in program.nodes
    )
    outputs = tuple((name, follow(ref)) for name, ref in program.outputs)
    return replace(program, nodes=nodes, outputs=outputs)


def without_dead_nodes(program: Program) -> Program:
    """The program without nodes that cannot reach an output.

    A node that updates a stored tensor in place (its name ends in `_`) is kept.
    """
    needed = {ref.name for _, ref in program.outputs if isinstance(ref, Ref)}
    kept: list[Node] = []
    for node in reversed(program.nodes):
        if needed.isdisjoint(node.outputs) and not node.op.split(".")[1].endswith("_"):
            continue
        outputs = tuple(name if name in needed else None for name in node.outputs)
        kept.append(replace(node, outputs=outputs))
        needed |= {leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)}
    return replace(program, nodes=tuple(reversed(kept)))


class Operate(Protocol):
    """Gives what a node gives, as `call` does."""

    def __call__(
        self, node: Node, look_up: Callable[[Ref | Weight], Any], *, device: torch.device | None
    ) -> tuple[Any, ...]:
        """The outputs of one operator call, its arguments looked up by `look_up`."""
        ...


def run(
    program: Program,
    tensors: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    watch: Callable[[Node, tuple[Any, ...]], None] | None = None,
    operate: Operate | None = None,
) -> list[torch.Tensor]:
    """Run a program.

    Args:
        program: what to run.
        tensors: a tensor for every name that the program reads.
        inputs: one tensor for each of `program.inputs`.
        watch: is called with every node and what it gives.
        operate: what calls every node; `call` unless given.

    Returns:
        One tensor for each of `program.outputs`.
    """
    values: dict[str, Any] = {
        spec.name: value for spec, value in zip(program.inputs, inputs, strict=True)
    }

    def look_up(leaf: Ref | Weight) -> Any:
        return tensors[leaf.name] if isinstance(leaf, Weight) else values[leaf.name]

    device, operate = inputs[0].device if inputs else None, operate or call
    for node, freed in zip(program.nodes, program.last_uses, strict=True):
        results = operate(node, look_up, device=device)
        if watch is not None:
            watch(node, results)
        values.update({n: v for n, v in zip(node.outputs, results, strict=False) if n is not None})
        for name in freed:
            values.pop(name, None)
    return [look_up(ref) for _, ref in program.outputs]


def call(
    node: Node, look_up: Callable[[Ref | Weight], Any], *, device: torch.device | None
) -> tuple[Any, ...]:
    """The outputs of one operator call, its arguments looked up by `look_up`.

    Raises:
        NestedgeError: the operator failed; the message names it and its place.
    """
    args = [_concrete(substitute(arg, look_up)) for arg in node.args]
    kwargs = {key: _concrete(substitute(arg, look_up)) for key, arg in node.kwargs.items()}
    if node.op in CREATION:
        kwargs["device"] = device
    try:
        result = resolve(node.op)(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise NestedgeError(f"{node.op} in {node.scope or 'the network'}: {reason}") from error
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _concrete(argument: Any) -> Any:
    return [_concrete(item) for item in argument] if isinstance(argument, tuple) else argument
