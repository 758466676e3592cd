"""The batch norms through which the channels or groups of an axis can be switched off.

A unit that a batch norm gives as zero may be left out where everything that combines it with others
finds that zero: then nothing in the network depends on whether it is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from nestedge.axes.analysis import Analysis, Units
from nestedge.branches import Known
from nestedge.convert import LevelProgram
from nestedge.elastic import Elastic
from nestedge.known import constant_along, known_values
from nestedge.program import operators
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Ref, TensorSpec, Weight

_NORM = "aten.batch_norm.default"
_PRODUCTS = operators.CONVOLUTION | operators.TRANSPOSED_CONVOLUTION | operators.CONTRACTION
_MIXING = (
    operators.ALONG
    | operators.RECURRENT
    | {"aten.layer_norm.default", "aten.rms_norm.default", "aten.group_norm.default"}
)
"""Operators whose outputs depend on how many units there are, or on units within them."""


def channel_gates(elastic: Elastic, named: Collection[str]) -> dict[str, Sequence[Node]]:
    """For every axis that can be switched off the batch norms that do it.

    Of several batch norms in a row the last one does, as in ResNeXt, whose groups have one in front
    of the grouped convolution and one behind. Where it does not, as with a residual trunk, to which
    many layers add, all of them may.

    Args:
        elastic: the network.
        named: the axes for which all of their batch norms are tried.
    """
    norms = _norms(elastic)
    last = {axis: nodes[-1:] for axis, nodes in norms.items()}
    gates = {axis: last[axis] for axis in _silent(elastic, last)}
    several = {axis: norms[axis] for axis in norms if axis in named and axis not in gates}
    return {**gates, **{axis: several[axis] for axis in _silent(elastic, several)}}


def positions(elastic: Elastic, tensor: str, axis: str) -> tuple[int, ...]:
    """For each entry of a vector its unit of an axis, or -1."""
    found: list[int] = []
    for run in elastic.layout.tensors[tensor].dims[0]:
        numbers = range(run.start, run.stop)
        units = [number if run.axis == axis else -1 for number in numbers]
        found += [unit for unit in units for _ in range(run.repeat)]
    return tuple(found)


def _norms(elastic: Elastic) -> dict[str, list[Node]]:
    """For every axis the batch norms with weights along it, in the order in which they run."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in elastic.program.nodes:
        if node.op != _NORM or not isinstance(node.args[1], Weight):
            continue
        runs = elastic.layout.tensors[node.args[1].name].dims[0]
        for axis in dict.fromkeys(run.axis for run in runs):
            if axis is not None and elastic.layout.axes[axis].kind == "width":
                found[axis].append(node)
    return found


def _silent(elastic: Elastic, gates: Mapping[str, Sequence[Node]]) -> list[str]:
    """Those of the axes on whose units nothing depends once their gates give zero.

    Tried with the first unit of every axis, since the others of an axis stand in the same places.
    """
    if not gates:
        return []
    axis_of, analysis = elastic.layout.axis_of, elastic.analysis
    probes = {axis_of.index(axis): nodes for axis, nodes in gates.items()}
    known = known_values(_gated(elastic, probes))
    heard = {
        unit
        for node in elastic.program.nodes
        if node.op not in operators.SYMBOLIC
        for unit in _borne(node.leaves(), analysis) & probes.keys()
        if _hears(node, unit, analysis, known)
    }
    return [axis_of[unit] for unit in probes if unit not in heard]


def _gated(elastic: Elastic, probes: Mapping[int, Sequence[Node]]) -> LevelProgram:
    """The network with a product behind batch norms: zero for some units.

    Its weights are arbitrary, so that what is zero is so by structure.
    """
    program, generator = elastic.program, torch.Generator().manual_seed(0)
    tensors = {
        name: _drawn(spec, generator)
        for name, spec in program.tensors.items()
        if name in program.used_tensors()
    }
    gated: dict[str, list[int]] = defaultdict(list)
    for unit, nodes in probes.items():
        for node in nodes:
            gated[node.output].append(unit)
    nodes, specs = [], dict(program.tensors)
    for node in program.nodes:
        if node.outputs[0] not in gated:
            nodes.append(node)
            continue
        output, gate = node.output, f"{node.output}.gate"
        (row,) = _rows(Ref(output), elastic.analysis, dim=1)
        trailing = (1,) * (len(elastic.analysis.shape_of(Ref(output))) - 2)
        dtype = program.tensors[node.args[1].name].dtype
        alive = torch.from_numpy(~np.isin(row, gated[output])).to(dtype)
        tensors[gate] = alive.reshape(-1, *trailing)
        specs[gate] = TensorSpec(tuple(tensors[gate].shape), dtype, "constant")
        product = ("aten.mul.Tensor", (Ref(f"{output}.ungated"), Weight(gate)))
        nodes.append(replace(node, outputs=(f"{output}.ungated",)))
        nodes.append(Node(*product, {}, (output,), node.scope))
    return LevelProgram(replace(program, nodes=tuple(nodes), tensors=specs), tensors, {}, {})


def _drawn(spec: TensorSpec, generator: torch.Generator) -> torch.Tensor:
    if not spec.dtype.is_floating_point:
        return torch.zeros(spec.shape, dtype=spec.dtype)
    return (torch.rand(spec.shape, generator=generator) + 0.5).to(spec.dtype)


def _rows(leaf: Ref | Weight, analysis: Analysis, *, dim: int) -> tuple[Units, ...]:
    """The units of channels or groups of a dimension, places in them aside."""
    rows = analysis.of(leaf).get(dim, ())
    return rows[:1]


def _borne(leaves: Iterator[Ref | Weight], analysis: Analysis) -> set[int]:
    """The units that some values have in any dimension."""
    found: set[int] = set()
    for leaf in leaves:
        if isinstance(leaf, Weight) or leaf.name in analysis.values:
            for rows in analysis.of(leaf).values():
                found.update(*(np.unique(row).tolist() for row in rows))
    return found


def _hears(node: Node, unit: int, analysis: Analysis, known: Known) -> bool:
    """Whether what a node gives, apart from the unit itself, depends on a unit that it reads."""
    if node.op in _MIXING:
        return True
    outputs = (Ref(name) for name in node.outputs if name is not None)
    is_kept = unit in _borne(outputs, analysis)
    if node.op not in _PRODUCTS:
        return not is_kept
    groups = named_arguments(node, lambda leaf: leaf).get("groups", 1)
    if is_kept and groups > 1:
        # A group's outputs depend on its own inputs only.
        return False
    return any(
        not _is_zero(leaf, dim, row == unit, known)
        for leaf in node.leaves()
        if isinstance(leaf, Ref) and leaf.name in analysis.values
        for dim, rows in analysis.of(leaf).items()
        for row in rows
        if (row == unit).any()
    )


def _is_zero(leaf: Ref, dim: int, entries: Units, known: Known) -> bool:
    value = known.get(leaf.name)
    if value is None:
        return False
    return bool((constant_along(value, dim).numpy()[entries] == 0).all())
