"""Which axes of which tensors of a program live and die together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nestedge.axes.call import Call
from nestedge.axes.planes import compact, reduced, varying
from nestedge.axes.rules import RULES
from nestedge.axes.tags import FROZEN, Tags, Ties
from nestedge.errors import UsageError
from nestedge.layouts import KINDS
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
        kinds: for every unit the kind of axis it is of, by its number in KINDS; shape (units,).
        shapes: for every value its shape at a batch of 2; a size has the shape None.
        values: for every value and each of its dimensions that depends on units, the unit of
            each entry; several arrays where an entry has several units (it lives if all do).
        weights: the same for every stored tensor.
    """

    program: Program
    kinds: npt.NDArray[np.int8]
    shapes: Mapping[str, tuple[int, ...] | None]
    values: Mapping[str, Mapping[int, tuple[Units, ...]]]
    weights: Mapping[str, Mapping[int, tuple[Units, ...]]]

    @property
    def count(self) -> int:
        """How many units there are."""
        return len(self.kinds)

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


def analyse(program: Program, *, fine: bool = True) -> Analysis:
    """Find which axes of which tensors of a program live and die together.

    Args:
        program: the program.
        fine: whether the rings of kernels and the places in heads and groups are units too.

    Raises:
        UsageError: an operator has no rule, or the program cannot run on its own inputs.
    """
    metas = trace_shapes(program, batch=TRACED_BATCH)
    walk = _Walk(program, metas, Ties(kernels=fine))
    outer = walk.walk()
    if not fine or not walk.ties.is_chosen:
        return outer
    return _with_places(outer, _Walk(program, metas, Ties("inner")).walk())


@dataclass
class _Walk:
    """One pass over a program; lives for one call of `walk`."""

    program: Program
    metas: Mapping[str, Any]
    ties: Ties
    tags: dict[str, Any] = field(default_factory=dict)
    weight_tags: dict[str, Tags] = field(default_factory=dict)

    def walk(self) -> Analysis:
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
        kinds = np.zeros(int(table.max(initial=ALWAYS)) + 1, dtype=np.int8)
        for tags in self.ties.rings:
            units = table[tags.numpy()]
            kinds[units[units != ALWAYS]] = KINDS.index("kernel")
        return Analysis(
            program=self.program,
            kinds=kinds,
            shapes={n: getattr(v, "shape", None) for n, v in self.tags.items()},
            values={name: _by_dim(value, table) for name, value in values.items()},
            weights={name: _by_dim(value, table) for name, value in self.weight_tags.items()},
        )


def _with_places(outer: Analysis, inner: Analysis) -> Analysis:
    """The outer analysis with those units of the inner one that are not the same weights.

    What lives by an analysis is a box of every value, and of every operator's operands the boxes
    that it needs. So is what lives by both.
    """
    new = np.flatnonzero(~np.isin(_contents(inner), _contents(outer)))
    # One longer, for ALWAYS: the last entry.
    table = np.full(inner.count + 1, ALWAYS, dtype=np.int64)
    table[new] = outer.count + np.arange(len(new))
    added = np.full(len(new), KINDS.index("head_width"), dtype=np.int8)
    return replace(
        outer,
        kinds=np.concatenate((outer.kinds, added)),
        values={n: _both(dims, inner.values[n], table) for n, dims in outer.values.items()},
        weights={n: _both(dims, inner.weights[n], table) for n, dims in outer.weights.items()},
    )


def _both(
    outer: Mapping[int, tuple[Units, ...]], inner: Mapping[int, tuple[Units, ...]], table: Units
) -> dict[int, tuple[Units, ...]]:
    """The units of a value by both analyses."""
    found = dict(outer)
    for dim, rows in inner.items():
        places = tuple(row for row in (table[row] for row in rows) if (row != ALWAYS).any())
        if places:
            found[dim] = (*found.get(dim, ()), *places)
    return found


def _contents(analysis: Analysis) -> npt.NDArray[np.uint64]:
    """A hash for every unit of the entries of tensors that it stands for."""
    contents = np.zeros(analysis.count, dtype=np.uint64)
    rng = np.random.default_rng(0)
    for name, dims in analysis.weights.items():
        for dim, size in enumerate(analysis.program.tensors[name].shape):
            codes = rng.integers(1, 2**63, size, dtype=np.uint64)
            for row in dims.get(dim, ()):
                np.add.at(contents, row[row != ALWAYS], codes[row != ALWAYS])
    return contents


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
