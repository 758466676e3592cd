"""A torch.export.ExportedProgram from a program."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.node import map_arg

from nestedge.program.graph import Node, Program, Ref, Weight, run, substitute
from nestedge.program.operators import COMPARISON, CREATION, SYMBOLIC, UNARY, resolve
from nestedge.program.structure import flatten, rebuild
from nestedge.tree import named, register


class ProgramModule(nn.Module):
    """A program as a module: its tensors under their own names, its inputs as forward had them."""

    def __init__(self, program: Program, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.program = program
        for name in sorted(program.used_tensors()):
            register(self, name, tensors[name].detach(), program.tensors[name].role)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the program gives for its inputs."""
        structure = self.program.arguments
        bound = {**dict(zip(structure.keys, args, strict=False)), **kwargs}
        outputs = run(self.program, named(self), flatten(structure, bound))
        return rebuild(self.program.results, iter(outputs))


class FlatModule(ProgramModule):
    """A program as a module for converters: inputs in order or by name, outputs by name.

    Converters have rules of their own for nested inputs, or none.
    """

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by name, in order."""
        leaves = args or [kwargs[spec.name] for spec in self.program.inputs]
        outputs = run(self.program, named(self), leaves)
        names = (name for name, _ in self.program.outputs)
        return dict(zip(names, outputs, strict=True))


_OTHERWISE = COMPARISON | {
    *("aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default"),
    *("aten.contiguous.default", "aten.pow.Scalar"),
}
_ALIKE = (UNARY - _OTHERWISE) | {"aten.batch_norm.default"}
"""Operators whose result has the shape, type and layout of their first argument, a float."""


class _Interface(nn.Module):
    """The inputs and outputs of a program with nothing in between."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, *args: Any) -> Any:
        structure = self.program.arguments
        leaves = flatten(structure, dict(zip(structure.keys, args, strict=True)))
        return rebuild(self.program.results, (leaves[0] + 0 for _ in self.program.outputs))


def emit(program: Program, tensors: Mapping[str, torch.Tensor]) -> ExportedProgram:
    """A program as an ExportedProgram with a dynamic batch.

    The graph is written as it stands: torch.export traces only the inputs and outputs, for
    their symbolic shapes. A second trace of the network would cost as much as the first.

    Args:
        program: what to export.
        tensors: a tensor for every name that the program reads.
    """
    examples = [torch.zeros(spec.shape_at(2), dtype=spec.dtype) for spec in program.inputs]
    dynamic = [{0: Dim("batch", min=1)} if None in spec.shape else None for spec in program.inputs]
    bound = rebuild(program.arguments, iter(examples))
    shapes = rebuild(program.arguments, iter(dynamic))  # type: ignore[arg-type]
    shell = export(
        _Interface(program), tuple(bound.values()), dynamic_shapes=(tuple(shapes.values()),)
    )
    return _Writer(program, shell, tensors).write()


@dataclass
class _Writer:
    """Writes one program between the inputs and outputs of a shell; lives for one `write`."""

    program: Program
    shell: ExportedProgram
    tensors: Mapping[str, torch.Tensor]
    graph: fx.Graph = field(default_factory=fx.Graph)
    values: dict[str, fx.Node] = field(default_factory=dict)
    weights: dict[str, fx.Node] = field(default_factory=dict)

    def write(self) -> ExportedProgram:
        root = ProgramModule(self.program, self.tensors)
        inputs = list(self._write_weights(root))
        inputs += list(self._write_inputs())
        for node in self.program.nodes:
            self._write_node(node)
        refs = iter([ref for _, ref in self.program.outputs])
        results = tuple(
            self._fx(next(refs)) if leaf.kind == "tensor" else leaf.value
            for leaf in self.program.results.leaves()
        )
        self.graph.output(results)
        outputs = [
            OutputSpec(OutputKind.USER_OUTPUT, _argument(result), None) for result in results
        ]
        stored = named(root)
        roles = {name: self.program.tensors[name].role for name in stored}
        return ExportedProgram(
            root,
            self.graph,
            ExportGraphSignature(inputs, outputs),
            {name: tensor for name, tensor in stored.items() if roles[name] != "constant"},
            self.shell.range_constraints,
            self.shell.module_call_graph,
            self.shell.example_inputs,
            {name: tensor for name, tensor in stored.items() if roles[name] == "constant"},
        )

    def _mode(self) -> Any:
        first = next(n for n in self.shell.graph.nodes if n.op == "placeholder")
        return first.meta["val"].fake_mode

    def _write_weights(self, root: nn.Module) -> Iterator[InputSpec]:
        kinds = {
            "parameter": InputKind.PARAMETER,
            "buffer": InputKind.BUFFER,
            "constant": InputKind.CONSTANT_TENSOR,
        }
        stored = named(root)
        taken: set[str] = set()
        # The verifier wants parameters first, then buffers, then constants.
        for role, kind in kinds.items():
            for name in stored:
                if self.program.tensors[name].role != role:
                    continue
                # A module may be called "block1-0", and a placeholder may not.
                identifier = f"{role[0]}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"
                while identifier in taken:
                    identifier += "_"
                taken.add(identifier)
                fx_node = self.graph.placeholder(identifier)
                fx_node.meta["val"] = self._mode().from_tensor(stored[name], static_shapes=True)
                self.weights[name] = fx_node
                persistent = True if kind == InputKind.BUFFER else None
                yield InputSpec(kind, TensorArgument(fx_node.name), name, persistent)

    def _write_inputs(self) -> Iterator[InputSpec]:
        user = self.shell.graph_signature.user_inputs
        kept = [n for n in self.shell.graph.nodes if n.op == "placeholder" and n.name in user]
        names = iter(self.program.inputs)
        specs = {s.arg.name: s for s in self.shell.graph_signature.input_specs}
        for shell_node in kept:
            fx_node = self.graph.placeholder(shell_node.name)
            fx_node.meta.update(shell_node.meta)
            if isinstance(shell_node.meta.get("val"), torch.Tensor):
                self.values[next(names).name] = fx_node
                yield InputSpec(InputKind.USER_INPUT, TensorArgument(fx_node.name), None)
            else:
                yield specs[shell_node.name]

    def _write_node(self, node: Node) -> None:
        target = resolve(node.op)
        args = tuple(_listed(substitute(arg, self._fx)) for arg in node.args)
        kwargs = {key: _listed(substitute(arg, self._fx)) for key, arg in node.kwargs.items()}
        if node.op in CREATION:
            kwargs["device"] = torch.device("cpu")
        fx_node = self.graph.call_function(target, args, kwargs)
        fake_args, fake_kwargs = map_arg((args, kwargs), lambda n: n.meta["val"])
        mode = self._mode()
        # The capture proved that the network takes any batch. Here, without a trace, what a kernel
        # asks about the example batch would become a condition on every batch.
        with mode, enable_python_dispatcher(), mode.shape_env.suppress_guards():
            value: Any = (
                # Known without the dozen operations on symbolic shapes that torch derives it by.
                torch.empty_like(fake_args[0])
                if node.op in _ALIKE and not kwargs and fake_args[0].is_floating_point()
                else target(*fake_args, **fake_kwargs)
            )
        self._describe(fx_node, value, node)
        if not isinstance(value, (tuple, list)) or node.op in SYMBOLIC:
            self.values[node.output] = fx_node
            return
        for index, name in enumerate(node.outputs):
            if name is not None:
                item = self.graph.call_function(operator.getitem, (fx_node, index))
                self._describe(item, value[index], node)
                self.values[name] = item

    def _describe(self, fx_node: fx.Node, value: Any, node: Node) -> None:
        fx_node.meta["val"] = value
        kinds = [p for p in _parents(node.scope) if p in self.program.modules or not p]
        stack = {f"L__self__{p}": (p, self.program.modules.get(p, "Module")) for p in kinds}
        fx_node.meta["nn_module_stack"] = stack
        fx_node.meta["torch_fn"] = (fx_node.name, node.op)

    def _fx(self, leaf: Ref | Weight) -> fx.Node:
        return self.weights[leaf.name] if isinstance(leaf, Weight) else self.values[leaf.name]


def _argument(result: Any) -> TensorArgument | ConstantArgument:
    is_tensor = isinstance(result, fx.Node)
    return TensorArgument(result.name) if is_tensor else ConstantArgument("", result)


def _listed(argument: Any) -> Any:
    return [_listed(item) for item in argument] if isinstance(argument, tuple) else argument


def _parents(scope: str) -> Iterable[str]:
    parts = scope.split(".") if scope else []
    return ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))]
