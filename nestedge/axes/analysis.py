"""Which axes of which tensors of a program live and die together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nestedge.axes.call import Call
from nestedge.axes.rules import RULES
from nestedge.axes.tags import FROZEN, Tags, Ties, compact, reduced, varying
from nestedge.errors import UsageError
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Ref, Weight
from nestedge.program.operators import SYMBOLIC
from nestedge.program.shapes import trace_shapes

Units = npt.NDArray[np.int64]
"""For every entry of a dimension the unit it belongs to, or ALWAYS."""

ALWAYS = -1
"""The unit of entries that every level has."""

TRACED_BATCH = 2


@dataclass(frozen=True)
class Analysis:
    """The units of a program.

    Attributes:
        program: what was analysed.
        count: how many units there are.
        shapes: for every value its shape at a batch of 2; a size has the shape None.
        values: for every value and each of its dimensions that depends on units, the unit of
            each entry; several arrays where dimensions were merged (an entry lives if all do).
        weights: the same for every stored tensor.
    """

    program: Program
    count: int
    shapes: Mapping[str, tuple[int, ...] | None]
    values: Mapping[str, Mapping[int, tuple[Units, ...]]]
    weights: Mapping[str, Mapping[int, tuple[Units, ...]]]

    def of(self, leaf: Ref | Weight) -> Mapping[int, tuple[Units, ...]]:
        """The units of a value or stored tensor, by dimension."""
        return self.weights[leaf.name] if isinstance(leaf, Weight) else self.values[leaf.name]

    def shape_of(self, leaf: Ref | Weight) -> tuple[int, ...]:
        """The shape of a value or stored tensor in the full network, at a batch of 2."""
        if isinstance(leaf, Weight):
            return self.program.tensors[leaf.name].shape
        shape = self.shapes[leaf.name]
        assert shape is not None
        return shape


def analyse(program: Program) -> Analysis:
    """Find which axes of which tensors of a program live and die together.

    Raises:
        UsageError: an operator has no rule, or the program cannot run on its own inputs.
    """
    return _Walk(program).walk()


@dataclass
class _Walk:
    """One pass over a program; lives for one call of `walk`."""

    program: Program
    ties: Ties = field(default_factory=Ties)
    tags: dict[str, Any] = field(default_factory=dict)
    metas: dict[str, Any] = field(default_factory=dict)
    weight_tags: dict[str, Tags] = field(default_factory=dict)

    def walk(self) -> Analysis:
        self.metas = trace_shapes(self.program, batch=TRACED_BATCH)
        for spec in self.program.inputs:
            self.tags[spec.name] = Tags(spec.shape_at(TRACED_BATCH))
        for node in self.program.nodes:
            self._visit(node)
        for _, ref in self.program.outputs:
            for plane in self._tags(ref).planes:
                self.ties.freeze(plane)
        return self._finish()

    def _visit(self, node: Node) -> None:
        if node.op in SYMBOLIC:
            self.tags[node.output] = self.metas[node.output]
            return
        if node.op not in RULES:
            raise UsageError(f"no rule for operator {node.op} ({node.line or node.scope})")
        shapes = [tuple(self.metas[name].shape) if name else () for name in node.outputs]
        call = Call(node.op, named_arguments(node, self._tags), shapes, self.ties)
        try:
            tags = RULES[node.op](call)
        except UsageError as error:
            raise UsageError(f"{error} ({node.line or node.scope})") from error
        for name, value in zip(node.outputs, tags, strict=False):
            if name is not None:
                self.tags[name] = value

    def _tags(self, leaf: Ref | Weight) -> Any:
        if isinstance(leaf, Ref):
            return self.tags[leaf.name]
        if leaf.name not in self.weight_tags:
            spec = self.program.tensors[leaf.name]
            self.weight_tags[leaf.name] = self.ties.weight(spec.shape)
        return self.weight_tags[leaf.name]

    def _finish(self) -> Analysis:
        for name in self.program.tensors:
            self._tags(Weight(name))
        label = self.ties.resolve()
        table = _numbered(label, self.weight_tags)
        values = {n: v for n, v in self.tags.items() if isinstance(v, Tags)}
        return Analysis(
            program=self.program,
            count=int(table.max(initial=ALWAYS)) + 1,
            shapes={n: getattr(v, "shape", None) for n, v in self.tags.items()},
            values={name: _by_dim(value, table) for name, value in values.items()},
            weights={name: _by_dim(value, table) for name, value in self.weight_tags.items()},
        )


def _numbered(label: npt.NDArray[np.int64], weights: Mapping[str, Tags]) -> npt.NDArray[np.int64]:
    """For every tag its unit: 0, 1, ... in the order in which weights first have them.

    Units that no stored tensor has, and those tied to FROZEN, are always there.
    """
    table = np.full(len(label), ALWAYS, dtype=np.int64)
    rows = [
        reduced(plane).reshape(-1).numpy() for tags in weights.values() for plane in tags.planes
    ]
    if not rows:
        return table
    roots = label[np.concatenate(rows)]
    unique, first = np.unique(roots, return_index=True)
    unique = unique[np.argsort(first)]
    unique = unique[unique != label[FROZEN]]
    table[unique] = np.arange(len(unique))
    numbered: npt.NDArray[np.int64] = table[label]
    return numbered


def _by_dim(value: Tags, table: npt.NDArray[np.int64]) -> dict[int, tuple[Units, ...]]:
    found: dict[int, tuple[Units, ...]] = {}
    lookup = torch.from_numpy(table)
    for plane in value.planes:
        units = compact(lookup[reduced(plane)].expand(value.shape))
        dims = varying(units)
        assert len(dims) <= 1, "Ties.resolve leaves one dimension"
        if dims:
            row = reduced(units).reshape(-1).numpy()
            found[dims[0]] = (*found.get(dims[0], ()), row)
        elif (first := int(units.reshape(-1)[0])) != ALWAYS:
            found.update(_single(first, value, plane, found))
    return found


def _single(
    unit: int, value: Tags, plane: torch.Tensor, found: Mapping[int, tuple[Units, ...]]
) -> dict[int, tuple[Units, ...]]:
    """A plane all of whose entries are one unit: it stands along its outermost dimension."""
    dim = varying(plane)[0]
    row = np.full(value.shape[dim], unit, dtype=np.int64)
    return {dim: (*found.get(dim, ()), row)}
