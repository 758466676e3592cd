"""What the outputs of a program need, and the program with some of its outputs only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

from nestedge.errors import UsageError
from nestedge.layouts import Axis
from nestedge.nesting import Nesting
from nestedge.program.graph import Program, Ref, Weight, is_weight, without_dead_nodes
from nestedge.program.operators import IN_PLACE
from nestedge.program.structure import restricted


def outputs_needing(program: Program) -> dict[str, set[int]]:
    """For every stored tensor the outputs, by their places, that are computed from it.

    A tensor that no output is computed from, as a batch norm's counter in evaluation, belongs to
    the other tensors of its module; where these have no reader either it is left out.
    """
    needing: dict[Ref | Weight, set[int]] = defaultdict(set)
    for unit, (_, leaf) in enumerate(program.outputs):
        needing[leaf].add(unit)
    for node in reversed(program.nodes):
        units = set[int]().union(*(needing[Ref(n)] for n in node.outputs if n is not None))
        for leaf in node.leaves() if units else ():
            needing[leaf] |= units
    found = {leaf.name: units for leaf, units in needing.items() if is_weight(leaf) and units}
    beside: dict[str, set[int]] = defaultdict(set)
    for name, units in found.items():
        beside[_module(name)] |= units
    unread = {name: beside[_module(name)] for name in program.tensors if name not in found}
    return found | {name: units for name, units in unread.items() if _module(name) and units}


def add_outputs(nesting: Nesting, program: Program, *, axis: str) -> Nesting:
    """The nesting with an axis of outputs, where the program has several."""
    count = len(program.outputs)
    if count < 2:
        return nesting
    serves = {
        name: tuple((axis, unit) for unit in sorted(needing))
        for name, needing in outputs_needing(program).items()
        if len(needing) < count
    }
    tensors = {
        name: replace(layout, serves=serves.get(name, ()))
        for name, layout in nesting.tensors.items()
    }
    return replace(
        nesting, axes={**nesting.axes, axis: Axis(count, kind="outputs")}, tensors=tensors
    )


def chosen_names(nesting: Nesting, level: str, axis: str, *, names: Sequence[str]) -> list[str]:
    """The names of the outputs that a level gives in evaluation, of those of the network."""
    kept = nesting.choice(level).intervals(axis, len(names))
    return [names[unit] for start, stop in kept for unit in range(start, stop)]


def given_outputs(
    program: Program, nesting: Nesting, level: str, *, axis: str, names: Sequence[str]
) -> list[str]:
    """The outputs of a program that a level gives.

    Besides those that it names it gives those that only training has, as long as they need nothing
    that the level lacks.

    Args:
        program: of the network, in evaluation or in training.
        nesting: its levels.
        level: which one.
        axis: the name of the axis of outputs.
        names: of the outputs in evaluation, in order.

    Raises:
        UsageError: an output needs in training what in evaluation only others need, or there is
            none.
    """
    chosen = chosen_names(nesting, level, axis, names=names)
    unserved, needing = nesting.unserved(level), outputs_needing(program)
    found = []
    for unit, (name, _) in enumerate(program.outputs):
        strange = sorted(tensor for tensor in unserved if unit in needing.get(tensor, ()))
        if name in chosen and strange:
            raise UsageError(
                f"level {level!r}: in training the output {name!r} needs {strange[0]!r}, which in "
                "evaluation only others need; give the level these outputs too"
            )
        if name in chosen or (name not in names and not strange):
            found.append(name)
    if not found:
        raise UsageError(f"level {level!r}: in training the network has none of {chosen}")
    return found


def with_outputs(program: Program, names: Collection[str]) -> Program:
    """The program with some of its outputs only, and without what nothing else needs.

    The results are the same structure without the others. In training, the counters of batch norms
    that only the others need would keep running; they stop.
    """
    outputs = tuple(output for output in program.outputs if output[0] in names)
    if outputs == program.outputs:
        return program
    results = restricted(program.results, names)
    assert results is not None, "an output is left"
    units = {unit for unit, (name, _) in enumerate(program.outputs) if name in names}
    gone = {name for name, needing in outputs_needing(program).items() if not needing & units}
    nodes = tuple(
        node
        for node in program.nodes
        if node.op not in IN_PLACE
        or gone.isdisjoint(leaf.name for leaf in node.leaves() if is_weight(leaf))
    )
    return without_dead_nodes(replace(program, nodes=nodes, outputs=outputs, results=results))


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]
