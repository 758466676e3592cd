"""Our flat graph from an exported program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import Node as FxNode
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils import _pytree as pytree

from nestedge.program.examples import batch_size, is_batched
from nestedge.program.graph import (
    Argument,
    InputSpec,
    Node,
    Program,
    Ref,
    TensorSpec,
    Weight,
    without_dead_nodes,
)
from nestedge.program.operators import ALLOWED, IN_PLACE, MOVEMENT
from nestedge.program.places import InPlaceError, dynamic_shape, no_rule, place_of
from nestedge.program.spelling import arguments_of, is_check, is_in_place, operator_name
from nestedge.program.structure import describe, flatten
from nestedge.reasons import capture_error, diagnosis

_ALIASING = MOVEMENT | {
    "aten.contiguous.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.to.dtype",
    "aten.dropout.default",
}
_IGNORED_KWARGS = ("device", "pin_memory", "layout", "memory_format", "non_blocking")


@dataclass(frozen=True)
class Capture:
    """What came out of a module.

    Attributes:
        program: the graph, in the mode the module was in.
        tensors: the module's own parameters, buffers and constants, by name (not copies).
        aliases: other state-dict names of tied tensors, to the name used here.
        examples: the first of the batch of every example input, by name.
    """

    program: Program
    tensors: dict[str, torch.Tensor]
    aliases: dict[str, str]
    examples: dict[str, torch.Tensor]


def read(
    exported: ExportedProgram, model: nn.Module, bound: dict[str, Any], *, is_dynamic: bool
) -> Capture:
    """The program of an exported module.

    Args:
        exported: what torch.export made of the module.
        model: the module, for its own tensors and their names.
        bound: the example inputs by the names of forward's arguments.
        is_dynamic: whether it was exported for any batch size.

    Raises:
        InPlaceError: an operator changes a part of a value in place that is read elsewhere.
        CaptureError: an operator has no rule.
    """
    return _Reader(exported, model, bound, is_dynamic).read()


@dataclass
class _Reader:
    """Turns one exported program into ours; lives for one call of `read`."""

    exported: ExportedProgram
    model: nn.Module
    bound: dict[str, Any]
    is_dynamic: bool
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    renamed: dict[FxNode, Argument] = field(default_factory=dict)
    roots: dict[FxNode, FxNode] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)

    def read(self) -> Capture:
        self._read_tensors()
        inputs = self._read_inputs()
        called = [fx for fx in self.exported.graph.nodes if fx.op == "call_function"]
        nodes = [node for fx in _needed(called) for node in self._read_node(fx)]
        results, outputs = self._read_outputs()
        arguments = describe(self.bound, "", what="input")
        program = Program(
            inputs, arguments, tuple(nodes), outputs, results, self.specs, self.modules
        )
        leaves = flatten(arguments, self.bound)
        examples = {
            spec.name: (leaf[:1] if spec.shape and spec.shape[0] is None else leaf).detach().clone()
            for spec, leaf in zip(inputs, leaves, strict=True)
        }
        return Capture(without_dead_nodes(program), self.tensors, self.aliases, examples)

    def _read_tensors(self) -> None:
        names: dict[int, str] = {}
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        persistent = self.model.state_dict(keep_vars=True)
        buffers = dict(self.model.named_buffers(remove_duplicate=False))
        for name, tensor in {**parameters, **buffers}.items():
            if id(tensor) in names:
                self.aliases[name] = names[id(tensor)]
                continue
            names[id(tensor)] = name
            is_buffer = "buffer" if name in persistent else "constant"
            self._store(name, tensor, "parameter" if name in parameters else is_buffer)

    def _store(self, name: str, tensor: torch.Tensor, role: Any) -> None:
        self.tensors[name] = tensor
        self.specs[name] = TensorSpec(tuple(tensor.shape), tensor.dtype, role)

    def _read_inputs(self) -> tuple[InputSpec, ...]:
        arguments = describe(self.bound, "", what="input")
        examples = dict(zip(arguments.names(), flatten(arguments, self.bound), strict=True))
        self.inputs = set(examples)
        batch = batch_size(list(examples.values()))
        names = iter(examples)
        placeholders = {n.name: n for n in self.exported.graph.nodes if n.op == "placeholder"}
        for spec in self.exported.graph_signature.input_specs:
            fx = placeholders[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                if isinstance(fx.meta.get("val"), torch.Tensor):
                    self.renamed[fx] = Ref(next(names))
                continue
            name = str(spec.target)
            if spec.kind == InputKind.CONSTANT_TENSOR and name not in self.tensors:
                constant = self.exported.constants[name]
                assert isinstance(constant, torch.Tensor)
                self._store(name, constant, "constant")
            self.renamed[fx] = Weight(self.aliases.get(name, name))
        return tuple(
            InputSpec(name, self._input_shape(value, batch), value.dtype)
            for name, value in examples.items()
        )

    def _input_shape(self, value: torch.Tensor, batch: int) -> tuple[int | None, ...]:
        shape: tuple[int | None, ...] = tuple(value.shape)
        return (None, *shape[1:]) if self.is_dynamic and is_batched(value, batch) else shape

    def _read_node(self, fx: FxNode) -> list[Node]:
        name = operator_name(fx)
        if name == "getitem":
            source, index = fx.args
            assert isinstance(source, FxNode)
            self.renamed[fx] = Ref(f"{self._value(source)}:{index}")
            return []
        if is_in_place(fx):
            name = self._functional(fx, name)
        if name not in ALLOWED:
            raise no_rule(fx, name)
        value: Any = fx.meta.get("val")
        if free_unbacked_symbols(value) or _is_selection(fx, name):
            raise dynamic_shape(fx, name)
        return [self._node(fx, name)]

    def _node(self, fx: FxNode, name: str) -> Node:
        scope = self._read_scope(fx)
        self.roots[fx] = self._root_of(fx, name)
        given, named = arguments_of(fx)
        args = tuple(self._argument(arg) for arg in given)
        kwargs = {k: self._argument(v) for k, v in named.items() if k not in _IGNORED_KWARGS}
        value = fx.meta.get("val")
        outputs: tuple[str, ...] = (self._value(fx),)
        if "_native_batch_norm" in str(fx.target):
            # The form without views of a batch norm has two results that nothing here reads.
            args = (*args[:5], False, *args[5:], False)
            outputs = (f"{self._value(fx)}:0",)
        elif isinstance(value, (list, tuple)):
            outputs = tuple(f"{self._value(fx)}:{i}" for i in range(len(value)))
        else:
            self.renamed[fx] = Ref(self._value(fx))
            self._rename_mutated(fx)
        return Node(name, args, kwargs, outputs, scope, place_of(fx))

    def _root_of(self, fx: FxNode, name: str) -> FxNode:
        source = fx.args[0] if fx.args else None
        if isinstance(source, FxNode) and (name in _ALIASING or is_in_place(fx)):
            return self.roots.get(source, source)
        return fx

    def _functional(self, fx: FxNode, name: str) -> str:
        """The out-of-place operator that may stand for an in-place one here."""
        target = fx.args[0]
        assert isinstance(target, FxNode)
        if name in IN_PLACE and isinstance(self.renamed.get(target), Weight):
            return name
        if isinstance(self.renamed.get(target), Weight):
            said = f"{name} changes a stored tensor"
            raise capture_error("in-place", said, operator=name, source=place_of(fx))
        root = self.roots.get(target, target)
        order = {node: i for i, node in enumerate(self.exported.graph.nodes)}
        for other, its_root in [*self.roots.items(), (root, root)]:
            later = any(order[user] > order[fx] for user in other.users)
            if its_root is root and other is not target and later:
                said = f"{name} changes a view of a value that is read later"
                found = diagnosis("in-place", said, operator=name, source=place_of(fx))
                raise InPlaceError(found)
        package, base, overload = name.split(".")
        return f"{package}.{base[:-1]}.{overload}"

    def _rename_mutated(self, fx: FxNode) -> None:
        target = fx.args[0] if fx.args else None
        stored = isinstance(target, FxNode) and isinstance(self.renamed.get(target), Weight)
        if is_in_place(fx) and isinstance(target, FxNode) and not stored:
            self.renamed[target] = Ref(self._value(fx))

    def _value(self, fx: FxNode) -> str:
        """The name of what a node gives: torch's own, unless an input has it."""
        name = fx.name
        while name in self.inputs:
            name += "_"
        return name

    def _read_scope(self, fx: FxNode) -> str:
        scope = ""
        for path, kind in (fx.meta.get("nn_module_stack") or {}).values():
            scope = path.split("@")[0]
            self.modules[scope] = str(kind).rsplit(".", 1)[-1]
        return scope

    def _argument(self, value: Any) -> Argument:
        if isinstance(value, FxNode):
            return self.renamed[value]
        if isinstance(value, (list, tuple)):
            return tuple(self._argument(item) for item in value)
        if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
            return None
        return value

    def _read_outputs(self) -> tuple[Any, tuple[tuple[str, Ref | Weight], ...]]:
        nodes = {n.name: n for n in self.exported.graph.nodes}
        refs: list[Any] = []
        for spec in self.exported.graph_signature.output_specs:
            if spec.kind != OutputKind.USER_OUTPUT:
                continue
            if isinstance(spec.arg, ConstantArgument):
                refs.append(spec.arg.value)
            elif isinstance(nodes[spec.arg.name].meta["val"], torch.Tensor):
                refs.append(nodes[spec.arg.name])
            else:
                raise capture_error("not-exportable", "the network returns a size")
        # Meta tensors stand for the outputs, so that their nesting gets its names.
        stand_ins = [torch.empty(0) if isinstance(ref, FxNode) else ref for ref in refs]
        spec = self.exported.call_spec.out_spec
        assert spec is not None
        value = pytree.tree_unflatten(stand_ins, spec)
        bare = isinstance(value, torch.Tensor)
        results = describe(
            value, "output" if bare or not isinstance(value, dict) else "", what="output"
        )
        values = [self.renamed[ref] for ref in refs if isinstance(ref, FxNode)]
        return results, tuple(zip(results.names(), values, strict=True))


def _is_selection(fx: FxNode, name: str) -> bool:
    """Whether a mask says which entries stay: torch.export may take their number for known."""
    values = [node.meta.get("val") for node in fx.all_input_nodes[1:]]
    return name == "aten.index.Tensor" and any(
        isinstance(value, torch.Tensor) and value.dtype == torch.bool for value in values
    )


def _needed(called: Sequence[FxNode]) -> list[FxNode]:
    """The operator calls that more than a check depends on."""
    needed: set[FxNode] = set()
    kept: list[FxNode] = []
    for fx in reversed(called):
        is_read = fx in needed or any(user.op == "output" for user in fx.users)
        if not is_check(fx) and (is_read or is_in_place(fx)):
            kept.append(fx)
            needed.update(fx.all_input_nodes)
    return kept[::-1]
