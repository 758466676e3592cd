"""What element masks leave behind, removed: channels that nothing reads or that say nothing.

A unit (channel, head, group) goes when everything that reads it either has zero weights for it, or
finds a constant there that can be added to the reader's bias exactly: any constant for a linear
layer or a convolution without padding, only zero for a padded one, whose border sees fewer taps. A
unit that a normalisation or a softmax mixes with others stays, and so does the last of a layer.

Before units, what is larger goes: branches that add zero (`branches`), and rings of zeros around
kernels (`rings`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nestedge.axes.analysis import ALWAYS, Analysis, Units, analyse
from nestedge.axes.layout import lay_out
from nestedge.axes.rewrite import Survival, specialise
from nestedge.branches import Known, without_silent_branches
from nestedge.convert import LevelProgram, evaluated, tensor_of
from nestedge.expressions import added, evaluate, take
from nestedge.intervals import intervals_of
from nestedge.known import constant_along, known_values
from nestedge.masks import Mask
from nestedge.program import operators
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Ref, TensorSpec, Weight, without_dead_nodes
from nestedge.rings import find_rings, without_rings


@dataclass(frozen=True)
class Stayed:
    """Units that are constant, or rings of a kernel that are zero, but could not be removed.

    Attributes:
        axis: of the level; "x's rings" for those of the kernel of a weight x.
        units: how many.
        reason: who needs them, and why a constant will not do.
    """

    axis: str
    units: int
    reason: str


@dataclass(frozen=True)
class Harvest:
    """What was removed from a level.

    Attributes:
        level: without it.
        removed: for every axis the number of units removed.
        folded: layers whose bias took over constants.
        stayed: constant units that stayed, and why.
        kernels: the size of every kernel that lost rings of zeros, by the name of its weight.
        branches: the modules whose additions went, because one summand is always zero.
    """

    level: LevelProgram
    removed: Mapping[str, int]
    folded: tuple[str, ...]
    stayed: tuple[Stayed, ...]
    kernels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    branches: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """One operator that combines the entries of a dimension.

    Attributes:
        node: the operator.
        units: the unit of every entry.
        constant: what every entry is, NaN where it depends on the input.
        free: entries whose weights are zero, or that are zero.
        foldable: entries that are constants which the bias can take over.
        reason: why other constants cannot go.
    """

    node: Node
    units: Units
    constant: npt.NDArray[np.float64]
    free: Mask
    foldable: Mask
    reason: str


def harvest(level: LevelProgram) -> Harvest:
    """Remove every branch, ring and unit that can go exactly, until none is left."""
    removed: dict[str, int] = {}
    kernels: dict[str, tuple[int, ...]] = {}
    folded: list[str] = []
    branches: list[str] = []
    while True:
        level, smaller = without_rings(level)
        known = known_values(level)
        level, silent = without_silent_branches(level, known)
        kernels |= smaller
        branches += silent
        level = _without_unused_tensors(level)
        analysis = analyse(level.program, fine=False)
        readings = list(_readings(level, analysis, known))
        live = _live(analysis, readings)
        if live.all():
            stayed = (*_stayed(analysis, readings), *_stuck_rings(level))
            kept = {name: size for name, size in kernels.items() if name in level.tensors}
            return Harvest(level, removed, tuple(folded), stayed, kept, tuple(branches))
        names = lay_out(analysis).axis_of
        for unit in np.flatnonzero(~live):
            removed[names[unit]] = removed.get(names[unit], 0) + 1
        shifting = ((r.node, _shift(r, live, level)) for r in readings)
        shifts = {node.output: shift for node, shift in shifting if shift is not None}
        names_of = {output: n.scope or n.op for n in level.program.nodes for output in n.outputs}
        folded += [names_of[output] for output in shifts]
        level = _without(level, analysis, live, shifts)


def _readings(level: LevelProgram, analysis: Analysis, known: Known) -> Iterator[_Reading]:
    for node in level.program.nodes:
        if node.op not in operators.SYMBOLIC:
            yield from _readings_of(node, level, analysis, known)


def _readings_of(
    node: Node, level: LevelProgram, analysis: Analysis, known: Known
) -> Iterator[_Reading]:
    a = named_arguments(node, lambda leaf: leaf)
    where = node.scope or "the network"
    is_product = node.op in operators.CONVOLUTION | {"aten.linear.default"}
    for leaf, dim in _combined(node, a, analysis):
        dim %= len(analysis.shape_of(leaf))
        for units in analysis.of(leaf).get(dim, ()):
            constant = np.full(len(units), math.nan)
            value = known.get(leaf.name) if isinstance(leaf, Ref) else None
            if value is not None:
                constant = constant_along(value, dim).numpy()
            free = constant == 0.0 if is_product else np.zeros(len(units), dtype=bool)
            foldable = np.zeros(len(units), dtype=bool)
            reason = f"{node.op.split('.')[1]} in {where} mixes it with others"
            if is_product and isinstance(a["weight"], Weight):
                weight = level.tensors[a["weight"].name]
                free |= (weight == 0).all(dim=0).reshape(len(units), -1).all(dim=1).numpy()
                padded = _is_padded(a, weight)
                foldable = np.isfinite(constant) & (not padded)
                reason = f"the padding of {where} would meet it"
            yield _Reading(node, units, constant, free, foldable, reason)


def _combined(
    node: Node, a: Mapping[str, Any], analysis: Analysis
) -> Iterator[tuple[Ref | Weight, int]]:
    """The values and tensors whose entries a node combines along a dimension, which comes too."""
    op = node.op
    if op in operators.CONVOLUTION | operators.TRANSPOSED_CONVOLUTION:
        # A grouped convolution combines the channels of one unit only.
        yield from [(a["input"], 1)] if a["groups"] == 1 else []
    elif op == "aten.linear.default":
        yield a["input"], -1
    elif op == "aten.scaled_dot_product_attention.default":
        names = (("query", -1), ("key", -1), ("key", -2), ("value", -2))
        yield from ((a[name], dim) for name, dim in names)
    elif op == "aten.einsum.default":
        # Those that the result has are not combined: they are kept for nothing, but exactly.
        yield from _all_dims(a["tensors"], analysis)
    elif op in operators.RECURRENT:
        states = a["hx"] if isinstance(a["hx"], list) else [a["hx"]]
        yield from _all_dims([a["input"], *states, *a["params"]], analysis)
    elif op == "aten._weight_norm.default":
        yield from _all_dims([a["v"]], analysis)
    elif op in operators.CONTRACTION:
        one, other = [value for value in a.values() if isinstance(value, (Ref, Weight))][-2:]
        yield from ((one, -1), (other, -2))
    elif op in ("aten.layer_norm.default", "aten.rms_norm.default"):
        yield from ((a["input"], -1 - i) for i in range(len(a["normalized_shape"])))
    elif op == "aten.group_norm.default":
        # Of several groups each is one unit; a single one is the whole layer.
        yield from [(a["input"], 1)] if a["num_groups"] == 1 else []
    elif op in operators.ALONG:
        yield a["self"], a["dim"]
    elif op in operators.REDUCTION:
        rank = len(analysis.shape_of(a["self"]))
        given = a.get("dim")
        dims = range(rank) if given is None or given == [] else given
        listed = dims if isinstance(dims, (list, range)) else [dims]
        yield from ((a["self"], dim) for dim in listed)


def _all_dims(
    leaves: Iterable[Ref | Weight], analysis: Analysis
) -> Iterator[tuple[Ref | Weight, int]]:
    return ((leaf, dim) for leaf in leaves for dim in range(len(analysis.shape_of(leaf))))


def _is_padded(a: Mapping[str, Any], weight: torch.Tensor) -> bool:
    padding = a.get("padding", 0)
    if isinstance(padding, str):
        return padding == "same" and any(size > 1 for size in weight.shape[2:])
    return any(padding) if isinstance(padding, list) else bool(padding)


def _live(analysis: Analysis, readings: Iterable[_Reading]) -> Mask:
    """Which units stay: those that some reader needs, and one of each dimension of a tensor."""
    needed = np.zeros(analysis.count, dtype=bool)
    for reading in readings:
        kept = reading.units[~(reading.free | reading.foldable)]
        needed[kept[kept != ALWAYS]] = True
    for dims in analysis.weights.values():
        for rows in dims.values():
            for row in rows:
                if (row != ALWAYS).all() and not needed[row].any():
                    needed[row[0]] = True
    return needed


def _shift(reading: _Reading, live: Mask, level: LevelProgram) -> npt.NDArray[np.float64] | None:
    """What the removed constants add to a reader's outputs: shape (outputs,); None for nothing."""
    gone = (reading.units != ALWAYS) & ~live[reading.units] & ~reading.free
    if not gone.any():
        return None
    name = named_arguments(reading.node, lambda leaf: leaf)["weight"].name
    weight = level.tensors[name].double()
    taps = weight.reshape(weight.shape[0], weight.shape[1], -1).sum(dim=2).numpy()
    shift: npt.NDArray[np.float64] = taps[:, gone] @ reading.constant[gone]
    return shift


def _without(
    level: LevelProgram,
    analysis: Analysis,
    live: Mask,
    shifts: Mapping[str, npt.NDArray[np.float64]],
) -> LevelProgram:
    survival = Survival(analysis, live)
    program = specialise(survival)
    tensors, expressions = dict(level.tensors), dict(level.expressions)
    for name in level.tensors:
        for dim in analysis.weights.get(name, {}):
            kept = survival.keep(Weight(name), dim)
            if kept is not None:
                tensors[name] = tensors[name][_index(tensors[name].dim(), dim, kept)]
                expressions[name] = take(expressions[name], dim, intervals_of(kept))
    specs, nodes = dict(program.tensors), []
    for node in program.nodes:
        shift = shifts.get(node.outputs[0] or "")
        if shift is not None:
            a = named_arguments(node, lambda leaf: leaf)
            rows = survival.keep(a["weight"], 0)
            values = (shift if rows is None else shift[rows]).tolist()
            like = tensors[a["weight"].name]
            base = None if a["bias"] is None else expressions[a["bias"].name]
            name = f"{node.outputs[0]}.bias"
            expressions[name] = added(base, values, evaluated(like).dtype.name)
            tensors[name] = tensor_of(evaluate(expressions[name], level.stored))
            specs[name] = TensorSpec(tuple(tensors[name].shape), like.dtype, "parameter")
            node = with_arguments(node, {"bias": Weight(name)})
        nodes.append(node)
    program = without_dead_nodes(replace(program, nodes=tuple(nodes), tensors=specs))
    return _without_unused_tensors(
        replace(level, program=program, tensors=tensors, expressions=expressions)
    )


def _without_unused_tensors(level: LevelProgram) -> LevelProgram:
    used = level.program.used_tensors()
    specs = {name: spec for name, spec in level.program.tensors.items() if name in used}
    return replace(
        level,
        program=replace(level.program, tensors=specs),
        tensors={name: t.contiguous() for name, t in level.tensors.items() if name in used},
        expressions={name: e for name, e in level.expressions.items() if name in used},
    )


def _index(rank: int, dim: int, kept: Mask) -> tuple[Any, ...]:
    index: list[Any] = [slice(None)] * rank
    index[dim] = torch.from_numpy(kept)
    return tuple(index)


def _stayed(analysis: Analysis, readings: Iterable[_Reading]) -> Iterator[Stayed]:
    names = lay_out(analysis).axis_of
    counts: dict[tuple[str, str], set[int]] = {}
    for reading in readings:
        stuck = np.isfinite(reading.constant) & ~reading.free & ~reading.foldable
        for unit in reading.units[stuck & (reading.units != ALWAYS)]:
            counts.setdefault((names[unit], reading.reason), set()).add(int(unit))
    for (axis, reason), units in counts.items():
        yield Stayed(axis, len(units), reason)


def _stuck_rings(level: LevelProgram) -> Iterator[Stayed]:
    for rings in find_rings(level):
        if rings.stuck:
            yield Stayed(f"{rings.weight}'s rings", rings.stuck, rings.reason)
