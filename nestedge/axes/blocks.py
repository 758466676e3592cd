"""Residual blocks that a level may leave out, found in a program by the modules they came from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise

from nestedge.program.graph import (
    Node,
    Program,
    Ref,
    bypassed,
    is_weight,
    without_dead_nodes,
)
from nestedge.program.operators import SYMBOLIC
from nestedge.program.shapes import trace_shapes

_ADDITIONS = {"aten.add.Tensor"}
_CONCATENATION = "aten.cat.default"
_CARRIERS = {
    "aten.relu.default",
    "aten.relu6.default",
    "aten.hardtanh.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.dropout.default",
    "aten.to.dtype",
}


@dataclass(frozen=True)
class Block:
    """A module whose output is its input plus a branch, or with a branch concatenated to it.

    Attributes:
        path: of the module.
        enters: the value that goes in.
        leaves: the value that comes out.
        pieces: values that are concatenated to the input; their units go with the block.
        tensors: the stored tensors that only the block has.
    """

    path: str
    enters: str
    leaves: str
    pieces: tuple[str, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of one module: some at the front cannot be left out.

    Attributes:
        name: path of the module, or of the first block where the module holds several stages.
        blocks: paths of all blocks, in order; a level keeps the first ones.
        removable: the block behind each path that may be left out.
    """

    name: str
    blocks: tuple[str, ...]
    removable: Mapping[str, Block]


@dataclass(frozen=True)
class Borders:
    """What crosses the borders of a program's modules, by their paths.

    Attributes:
        enters: the values that a module reads and does not make, sizes aside, and how often.
        reads: how often every value is read.
        leaves: the values that it makes and others read, sizes aside.
        tensors: the stored tensors that only it has.
    """

    enters: Mapping[str, Mapping[str, int]]
    reads: Mapping[str, int]
    leaves: Mapping[str, Collection[str]]
    tensors: Mapping[str, tuple[str, ...]]

    def passage(self, path: str) -> tuple[str, str] | None:
        """The value that goes into a module and the one that comes out; None where more do."""
        entering, leaving = self.enters.get(path, ()), self.leaves.get(path, ())
        if len(entering) != 1 or len(leaving) != 1:
            return None
        (enters,), (leaves,) = entering, leaving
        return enters, leaves

    def passages(self, path: str) -> Iterator[tuple[str, str]]:
        """The same for each value that may be what goes in: the others are read outside too.

        So a mask or a table of positions that all blocks read is nothing that passes through one.
        """
        entering, leaving = self.enters.get(path, {}), tuple(self.leaves.get(path, ()))
        inside = [name for name, reads in entering.items() if reads == self.reads[name]]
        for enters in entering if len(leaving) == 1 else ():
            if {*inside} <= {enters}:
                yield enters, leaving[0]


def borders(program: Program) -> Borders:
    """What crosses the borders of all modules, from one pass over the nodes."""
    sizes = {name for n in program.nodes if n.op in SYMBOLIC for name in n.outputs}
    made_in = {name: node.scope for node in program.nodes for name in node.outputs}
    enters: dict[str, Counter[str]] = defaultdict(Counter)
    leaves: dict[str, dict[str, None]] = defaultdict(dict)
    uses = [(n.scope, leaf) for n in program.nodes for leaf in n.leaves()]
    for scope, leaf in [*uses, *(("", ref) for _, ref in program.outputs)]:
        maker = made_in.get(leaf.name, "")
        if is_weight(leaf) or maker == scope or leaf.name in sizes:
            continue
        readers, makers = around(scope), around(maker)
        for path in readers[_shared(readers, makers) :]:
            enters[path][leaf.name] += 1
        for path in makers[_shared(readers, makers) :]:
            leaves[path][leaf.name] = None
    reads = Counter(leaf.name for _, leaf in uses)
    reads.update(ref.name for _, ref in program.outputs)
    return Borders(enters, reads, leaves, _own_tensors(program))


def _own_tensors(program: Program) -> dict[str, tuple[str, ...]]:
    """For every module the tensors below its path that no node outside it reads."""
    reading: dict[str, tuple[str, ...]] = {}
    for node in program.nodes:
        for leaf in node.leaves():
            if is_weight(leaf):
                places = around(node.scope)
                known = reading.get(leaf.name, places)
                reading[leaf.name] = known[: _shared(known, places)]
    own: dict[str, list[str]] = defaultdict(list)
    for name in program.tensors:
        above = around(name)[:-1]
        for path in above[: _shared(above, reading.get(name, above))]:
            own[path].append(name)
    return {path: tuple(names) for path, names in own.items()}


@cache
def around(path: str) -> tuple[str, ...]:
    """A module and those that it is in, outermost first, the network itself aside.

    >>> around("layer1.0.conv1")
    ('layer1', 'layer1.0', 'layer1.0.conv1')
    """
    return tuple(accumulate(path.split("."), lambda *parts: ".".join(parts))) if path else ()


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many modules two places have in common: those in front."""
    count = min(len(one), len(other))
    while count and one[count - 1] != other[count - 1]:
        count -= 1
    return count


def find_blocks(program: Program) -> dict[str, Block]:
    """Every outermost residual block of a program by path, stages themselves left aside."""
    joins = _ADDITIONS | {_CONCATENATION}
    adding = {path for n in program.nodes if n.op in joins for path in around(n.scope)}
    paths = [path for path in program.modules if path in adding]
    blocks = _blocks(program, paths) if paths else {}
    values = trace_shapes(program, batch=2) if blocks else {}
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in values.items()}
    found = {path: block for path, block in blocks.items() if _fits(block, shapes)}
    rows = Counter(
        above for path in found if path.rpartition(".")[2].isdigit() for above in around(path)[:-1]
    )
    # A module that holds several numbered blocks is a row of blocks rather than a block.
    single = {path: block for path, block in found.items() if rows[path] < 2}
    return {
        path: block for path, block in single.items() if single.keys().isdisjoint(around(path)[:-1])
    }


def _blocks(program: Program, paths: Iterable[str]) -> dict[str, Block]:
    """Those of the modules through which one value passes, with something added to it."""
    crossing = borders(program)
    made = {name: node for node in program.nodes for name in node.outputs if name is not None}
    found = {}
    for path in paths:
        ways = [(passage, _pieces(made, *passage)) for passage in crossing.passages(path)]
        known = [(passage, pieces) for passage, pieces in ways if pieces is not None]
        if len(known) == 1:
            ((passage, pieces),) = known
            found[path] = Block(path, *passage, pieces, crossing.tensors.get(path, ()))
    return found


def _fits(block: Block, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether what leaves a block has the shape of what enters it, but for the pieces."""
    enters, leaves = shapes[block.enters], shapes[block.leaves]
    if len(enters) != len(leaves):
        return False
    grown = [dim for dim, size in enumerate(enters) if size != leaves[dim]]
    if not block.pieces:
        # Broadcast by the addition, or concatenated with itself: without the block it is smaller.
        return not grown
    added = sum(shapes[piece][grown[0]] for piece in block.pieces) if len(grown) == 1 else 0
    return added > 0 and enters[grown[0]] + added == leaves[grown[0]]


def _pieces(made: Mapping[str, Node], enters: str, leaves: str) -> tuple[str, ...] | None:
    """What is concatenated on the way from a module's input to its output; None without a way.

    What adds to its input as well is no way: without the block its input would be another one.
    """
    ways: list[tuple[str, tuple[str, ...], bool]] = [(leaves, (), False)]
    seen: set[str] = set()
    while ways:
        name, pieces, is_sum = ways.pop()
        if name == enters and not (pieces and is_sum):
            return pieces
        node = made.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        parts = [leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)]
        if node.op in _ADDITIONS | _CARRIERS:
            ways += [(part, pieces, is_sum or node.op in _ADDITIONS) for part in parts]
        elif node.op == _CONCATENATION:
            others = ((part, tuple(p for p in parts if p != part)) for part in parts)
            ways += [(part, (*pieces, *rest), is_sum) for part, rest in others]
    return None


def find_stages(program: Program) -> tuple[Stage, ...]:
    """The stages of a program: rows of blocks of one class, side by side in one module."""
    blocks = find_blocks(program)
    parents = dict.fromkeys(path.rpartition(".")[0] for path in blocks)
    below = children(program)
    stages: list[Stage] = []
    for parent in parents:
        rows = list(_rows(program, below[parent], blocks))
        for row in rows:
            name = parent if len(rows) == 1 and parent else row[0]
            removable = {path: blocks[path] for path in row if path in blocks}
            stages.append(Stage(name, tuple(row), removable))
    return tuple(stages)


def _rows(
    program: Program, children: Iterable[str], blocks: Mapping[str, Block]
) -> Iterator[list[str]]:
    children = tuple(children)
    kinds = {program.modules[path] for path in children if path in blocks}
    row: list[str] = []
    for path in children:
        if path in blocks:
            row.append(path)
            continue
        if any(p in blocks for p in row):
            yield row
        row = [path] if program.modules.get(path) in kinds else []
    if any(p in blocks for p in row):
        yield row


def children(program: Program) -> dict[str, dict[str, None]]:
    """For every module its child modules in the order in which they run."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for node in program.nodes:
        for parent, child in pairwise(("", *around(node.scope))):
            found[parent][child] = None
    return found


def without_blocks(program: Program, paths: Iterable[str]) -> Program:
    """The program with some residual blocks left out: what goes in comes out."""
    paths = frozenset(paths)
    if not paths:
        return without_dead_nodes(program)
    blocks = _blocks(program, sorted(paths))
    missing = sorted(paths - blocks.keys())
    assert not missing, f"{missing} were found as blocks of the reference program"
    program = bypassed(program, {block.leaves: Ref(block.enters) for block in blocks.values()})
    return without_dead_nodes(without_modules(program, paths))


def without_modules(program: Program, paths: Collection[str]) -> Program:
    """The program without the nodes of some modules, those that work out sizes aside.

    In training, the counters of the modules' batch norms would keep running.
    """
    gone = frozenset(paths)
    kept = tuple(n for n in program.nodes if n.op in SYMBOLIC or gone.isdisjoint(around(n.scope)))
    return replace(program, nodes=kept)
