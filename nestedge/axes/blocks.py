"""Residual blocks that a level may leave out, found in a program by the modules they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from nestedge.program.graph import (
    Node,
    Program,
    Ref,
    Weight,
    bypassed,
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


def find_blocks(program: Program) -> dict[str, Block]:
    """Every outermost residual block of a program by path, stages themselves left aside."""
    joins = _ADDITIONS | {_CONCATENATION}
    adding = {node.scope for node in program.nodes if node.op in joins}
    paths = [p for p in program.modules if p and any(_inside(scope, p) for scope in adding)]
    values = trace_shapes(program, batch=2) if paths else {}
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in values.items()}
    blocks = {path: _block(program, path) for path in paths}
    found = {path: block for path, block in blocks.items() if block and _fits(block, shapes)}
    stages = {path for path in found if _holds_blocks(path, found)}
    single = {path: block for path, block in found.items() if path not in stages}
    return {
        path: block
        for path, block in single.items()
        if not any(path.startswith(other + ".") for other in single)
    }


def _holds_blocks(path: str, found: Mapping[str, Block]) -> bool:
    """Whether a module is a row of numbered blocks rather than a block."""
    inside = [p for p in found if p.startswith(path + ".") and p.rsplit(".", 1)[1].isdigit()]
    return len(inside) >= 2


def _inside(scope: str, path: str) -> bool:
    return scope == path or scope.startswith(path + ".")


def _block(program: Program, path: str) -> Block | None:
    mine = [node for node in program.nodes if _inside(node.scope, path)]
    made = {name: node for node in mine for name in node.outputs if name is not None}
    sizes = {name for n in program.nodes if n.op in SYMBOLIC for name in n.outputs}
    entering = {
        leaf.name
        for node in mine
        for leaf in node.leaves()
        if isinstance(leaf, Ref) and leaf.name not in made and leaf.name not in sizes
    }
    outside = [node for node in program.nodes if not _inside(node.scope, path)]
    read = {leaf.name for n in outside for leaf in n.leaves() if isinstance(leaf, Ref)}
    read |= {ref.name for _, ref in program.outputs if isinstance(ref, Ref)}
    leaving = (set(made) - sizes) & read
    if len(entering) != 1 or len(leaving) != 1:
        return None
    (enters,), (leaves,) = entering, leaving
    pieces = _pieces(made, enters, leaves)
    if pieces is None:
        return None
    return Block(path, enters, leaves, pieces, _own_tensors(program, path, outside))


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
    """What is concatenated on the way from a module's input to its output; None without a way."""
    ways: list[tuple[str, tuple[str, ...]]] = [(leaves, ())]
    while ways:
        name, pieces = ways.pop()
        if name == enters:
            return pieces
        node = made.get(name)
        if node is None:
            continue
        parts = [leaf.name for leaf in node.leaves() if isinstance(leaf, Ref)]
        if node.op in _ADDITIONS | _CARRIERS:
            ways += [(part, pieces) for part in parts]
        elif node.op == _CONCATENATION:
            others = ((part, tuple(p for p in parts if p != part)) for part in parts)
            ways += [(part, (*pieces, *rest)) for part, rest in others]
    return None


def _own_tensors(program: Program, path: str, outside: Iterable[Node]) -> tuple[str, ...]:
    shared = {leaf.name for n in outside for leaf in n.leaves() if isinstance(leaf, Weight)}
    return tuple(n for n in program.tensors if n.startswith(path + ".") and n not in shared)


def find_stages(program: Program) -> tuple[Stage, ...]:
    """The stages of a program: rows of blocks of one class, side by side in one module."""
    blocks = find_blocks(program)
    parents = dict.fromkeys(path.rpartition(".")[0] for path in blocks)
    stages: list[Stage] = []
    for parent in parents:
        rows = list(_rows(program, parent, blocks))
        for row in rows:
            name = parent if len(rows) == 1 and parent else row[0]
            removable = {path: blocks[path] for path in row if path in blocks}
            stages.append(Stage(name, tuple(row), removable))
    return tuple(stages)


def _rows(program: Program, parent: str, blocks: Mapping[str, Block]) -> Iterator[list[str]]:
    kinds = {program.modules[path] for path in blocks if path.rpartition(".")[0] == parent}
    row: list[str] = []
    for path in _children(program, parent):
        if path in blocks:
            row.append(path)
            continue
        if any(p in blocks for p in row):
            yield row
        row = [path] if program.modules.get(path) in kinds else []
    if any(p in blocks for p in row):
        yield row


def _children(program: Program, parent: str) -> Iterator[str]:
    """The child modules of a module in the order in which they run."""
    prefix = parent + "." if parent else ""
    seen: dict[str, None] = {}
    for node in program.nodes:
        if node.scope.startswith(prefix) and node.scope != parent and node.scope:
            seen.setdefault(prefix + node.scope[len(prefix) :].split(".", 1)[0], None)
    return iter(seen)


def without_blocks(program: Program, paths: Iterable[str]) -> Program:
    """The program with some residual blocks left out: what goes in comes out."""
    paths = tuple(paths)
    bypass = {}
    for path in paths:
        block = _block(program, path)
        assert block is not None, f"{path} was found as a block of the reference program"
        bypass[block.leaves] = Ref(block.enters)
    program = bypassed(program, bypass)
    # In training, the counters of the blocks' batch norms would keep running.
    kept = tuple(
        node
        for node in program.nodes
        if node.op in SYMBOLIC or not any(_inside(node.scope, path) for path in paths)
    )
    return without_dead_nodes(replace(program, nodes=kept))
