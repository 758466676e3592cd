"""Modules side by side that a level may leave out: branches of a block, experts of a layer.

They read the same value, and their outputs are concatenated, added or stacked and then summed. On
its way there the output of a branch may be moved, weighed by a gate or sent through functions that
take zero to zero: a level without a branch computes what the whole network does when that branch
gives zero, or does not have its channels. Gates stay as they are: those of the branches that are
left are not scaled up.

What residual blocks add to what goes into them is no branch, but a depth. Nor is a projection on
the shortcut: where modules of a class are residual blocks, two modules that are added directly in
another one of that class are a shortcut and the block's own layers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from nestedge.axes.blocks import Borders, Stage, borders, children, without_modules
from nestedge.axes.meetings import (
    CONCATENATION,
    STACKING,
    Flow,
    Meeting,
    carries,
    is_alone,
    joins,
    summands,
)
from nestedge.errors import UsageError
from nestedge.program.arguments import with_arguments
from nestedge.program.graph import Node, Program, Ref, Weight, bypassed, without_dead_nodes
from nestedge.program.operators import SYMBOLIC


@dataclass(frozen=True)
class Branch:
    """A module beside others.

    Attributes:
        path: of the module.
        pieces: the value of it that is concatenated to those of the others; its units go with the
            branch; none where the outputs are added.
        tensors: the stored tensors that only the branch has.
    """

    path: str
    pieces: tuple[str, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Modules side by side whose outputs meet: some may be impossible to leave out.

    Attributes:
        name: path of the module that they are in; of the first branch where that holds several
            groups.
        branches: paths of all branches in the order in which they run.
        removable: the branch behind each path that may be left out.
    """

    name: str
    branches: tuple[str, ...]
    removable: Mapping[str, Branch]


def find_branches(program: Program, stages: Iterable[Stage]) -> tuple[Group, ...]:
    """The groups of a program: modules side by side whose outputs are concatenated or summed.

    Args:
        program: the program.
        stages: its stages, whose blocks are not branches besides.
    """
    crossing = borders(program)
    residual = {path for stage in stages for path in stage.removable}
    classes = {program.modules[path] for path in residual}
    flow = Flow(program)
    rows = [
        (parent, meetings)
        for parent, meetings in _rows(flow, crossing, residual)
        if parent in residual
        or program.modules.get(parent) not in classes
        or not any(summands(meeting.node) for meeting in meetings.values())
    ]
    parents = Counter(parent for parent, _ in rows)
    return tuple(
        Group(
            parent if parent and parents[parent] == 1 else next(iter(meetings)),
            tuple(meetings),
            dict(_removable(flow, crossing, meetings)),
        )
        for parent, meetings in rows
    )


def _rows(
    flow: Flow, crossing: Borders, residual: Collection[str]
) -> Iterator[tuple[str, dict[str, Meeting]]]:
    """Modules of one parent that read the same and meet in one place."""
    found: dict[tuple[str, str, str], dict[str, Meeting]] = defaultdict(dict)
    for (parent, enters), beside in _beside(flow.program, crossing, residual).items():
        for path, leaves in beside.items():
            meeting = flow.meeting(leaves)
            place = flow.place(meeting) if meeting else None
            if meeting and place:
                found[parent, enters, place][path] = meeting
    for (parent, _, _), meetings in found.items():
        # The factors of a product are no branches: what they give is one operand.
        operands = Counter(meeting.operand for meeting in meetings.values())
        row = {path: m for path, m in meetings.items() if operands[m.operand] == 1}
        if len(row) > 1:
            yield parent, row


def _beside(
    program: Program, crossing: Borders, residual: Collection[str]
) -> dict[tuple[str, str], dict[str, str]]:
    """By their parent and by what they read: modules, each with the one value that it gives."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for parent, paths in children(program).items():
        for path in paths:
            passage = crossing.passage(path)
            if passage and path not in residual:
                enters, leaves = passage
                found[parent, enters][path] = leaves
    return {key: beside for key, beside in found.items() if len(beside) > 1}


def _removable(
    flow: Flow, crossing: Borders, meetings: Mapping[str, Meeting]
) -> Iterator[tuple[str, Branch]]:
    for path, meeting in meetings.items():
        if flow.may_go(meeting):
            pieces = (meeting.operand,) if meeting.node.op == CONCATENATION else ()
            tensors = (*crossing.tensors.get(path, ()), *flow.tensors(meeting))
            yield path, Branch(path, pieces, tensors)


def without_branches(program: Program, paths: Iterable[str]) -> Program:
    """The program with some branches left out: they give zero, or have no channels.

    Args:
        program: of the network, in evaluation or in training.
        paths: of modules that are branches in evaluation.

    Raises:
        UsageError: the program reads the output of a branch in another way too.
    """
    paths = frozenset(paths)
    if not paths:
        return program
    crossing = borders(program)
    cut = _Cut({name for path in paths for name in crossing.leaves.get(path, ())})
    try:
        nodes = tuple(rest for node in without_modules(program, paths).nodes for rest in cut(node))
        if cut.dead.intersection(ref.name for _, ref in program.outputs):
            raise UsageError("it is an output")
    except UsageError as error:
        raise UsageError(
            f"branches {sorted(paths)}: in training the network does not only add or concatenate "
            f"what they give ({error}); keep them: a share of 1.0"
        ) from error
    return without_dead_nodes(bypassed(replace(program, nodes=nodes), cut.instead))


@dataclass
class _Cut:
    """What is left of a program's nodes without some values; called on each of them in order.

    Attributes:
        dead: values that are gone.
        filled: those of them that are not zero where the branch is; these can be concatenated only.
        instead: for sums and concatenations of which one operand is left that operand.
    """

    dead: set[str]
    filled: set[str] = field(default_factory=set)
    instead: dict[str, Ref] = field(default_factory=dict)

    def __call__(self, node: Node) -> list[Node]:
        """What stands in the place of a node.

        Raises:
            UsageError: what it gives is neither zero nor a sum without a value that is gone.
        """
        gone = self.dead.intersection(leaf.name for leaf in node.leaves() if isinstance(leaf, Ref))
        if not gone or node.op in SYMBOLIC:
            return [node]
        if joins(node):
            return self._joined(node, gone)
        carries_zero = any(carries(node, name) for name in gone - self.filled)
        if not carries_zero and not is_alone(node):
            raise UsageError(f"{node.op} reads it")
        self._lose(node, is_filled=not carries_zero)
        return []

    def _joined(self, node: Node, gone: Collection[str]) -> list[Node]:
        parts = node.args if summands(node) else node.args[0]
        left = [part for part in parts if part.name not in gone]
        if node.op != CONCATENATION and not self.filled.isdisjoint(gone):
            raise UsageError(f"{node.op} reads it")
        if not left:
            self._lose(node, is_filled=not self.filled.isdisjoint(gone))
            return []
        if node.op == STACKING:
            return [*(_zeros(name, left[0], node.scope) for name in sorted(gone)), node]
        if len(left) == 1 and isinstance(left[0], Ref):
            self.instead[node.output] = left[0]
            return []
        return [with_arguments(node, {"tensors": tuple(left)})]

    def _lose(self, node: Node, *, is_filled: bool) -> None:
        names = {name for name in node.outputs if name is not None}
        self.dead |= names
        self.filled |= names if is_filled else set()


def _zeros(name: str, like: Ref | Weight, scope: str) -> Node:
    return Node("aten.zeros_like.default", (like,), {}, (name,), scope)
