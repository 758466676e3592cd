"""A program rewritten for the units that live: every literal size in it made the level's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nestedge.axes.analysis import ALWAYS, Analysis
from nestedge.axes.kernels import padding_without
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Program, Ref, TensorSpec, Weight

Live = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Survival:
    """Which entries of every value and tensor survive when only some units live.

    Attributes:
        analysis: the units of the program.
        live: which units live, shape (units,).
    """

    analysis: Analysis
    live: Live

    def keep(self, leaf: Ref | Weight, dim: int) -> Live | None:
        """Which entries of a dimension survive; None when all do."""
        rows = self.analysis.of(leaf).get(dim % max(1, self.rank(leaf)))
        if rows is None:
            return None
        kept = np.ones(len(rows[0]), dtype=bool)
        for row in rows:
            kept &= (row == ALWAYS) | self.live[row]
        return None if kept.all() else kept

    def rank(self, leaf: Ref | Weight) -> int:
        """How many dimensions a value or tensor has."""
        return len(self.analysis.shape_of(leaf))

    def sizes(self, leaf: Ref | Weight) -> list[int | None]:
        """For every dimension the surviving size, or None where nothing changes."""
        kept = (self.keep(leaf, dim) for dim in range(self.rank(leaf)))
        return [None if row is None else int(row.sum()) for row in kept]

    def before(self, leaf: Ref | Weight, dim: int, index: int) -> int:
        """How many entries survive in front of an index of a dimension."""
        kept = self.keep(leaf, dim)
        return index if kept is None else int(kept[:index].sum())


def specialise(survival: Survival) -> Program:
    """The program with every tensor cut to its surviving entries, and every size to match."""
    program = survival.analysis.program
    tensors = {
        name: TensorSpec(_cut(spec.shape, survival.sizes(Weight(name))), spec.dtype, spec.role)
        for name, spec in program.tensors.items()
    }
    nodes = tuple(new for node in program.nodes for new in _rewritten(node, survival))
    return replace(program, nodes=nodes, tensors=tensors)


def _cut(shape: tuple[int, ...], sizes: list[int | None]) -> tuple[int, ...]:
    return tuple(n if size is None else size for n, size in zip(shape, sizes, strict=True))


def _rewritten(node: Node, survival: Survival) -> tuple[Node, ...]:
    if node.op in _MADE:
        return _made(node, survival)
    rewrite = _REWRITES.get(node.op)
    return (node if rewrite is None else rewrite(node, survival),)


def _arguments(node: Node) -> dict[str, Any]:
    return named_arguments(node, lambda leaf: leaf)


def _resize(argument: str) -> Callable[[Node, Survival], Node]:
    """Rewrites a list of output sizes; a size computed from the batch is left to be inferred."""

    def rewrite(node: Node, survival: Survival) -> Node:
        given = _arguments(node)
        lead = given["dim"] % survival.rank(given["self"]) if "dim" in given else 0
        sizes = list(given[argument])
        wanted = survival.sizes(Ref(node.output))[lead : lead + len(sizes)]
        inferred = [i for i, old in enumerate(sizes) if old == -1]
        for i, (old, new) in enumerate(zip(sizes, wanted, strict=True)):
            if new is None or old == -1:
                continue
            if isinstance(old, int):
                sizes[i] = new
                continue
            for j in inferred:  # one size alone can be inferred; the other one is known
                sizes[j] = wanted[j] or survival.analysis.shape_of(Ref(node.output))[lead + j]
            sizes[i], inferred = -1, [i]
        return with_arguments(node, {argument: tuple(sizes)})

    return rewrite


def _made(node: Node, survival: Survival) -> tuple[Node, ...]:
    """A value that is made or expanded: here no size is inferred, and -1 keeps that of a value.

    So a size computed from the batch, as that of all its heads, is computed anew from itself.
    """
    sizes = list(_arguments(node)["size"])
    whole = survival.analysis.shape_of(Ref(node.output))
    before: list[Node] = []
    for i, (old, new) in enumerate(zip(sizes, survival.sizes(Ref(node.output)), strict=True)):
        if new is None or old == -1:
            continue
        if isinstance(old, int):
            sizes[i] = new
            continue
        product, share = (f"{node.output}:{name}{i}" for name in ("product", "share"))
        before.append(Node("sym.mul", (old, new), {}, (product,), node.scope))
        before.append(Node("sym.floordiv", (Ref(product), whole[i]), {}, (share,), node.scope))
        sizes[i] = Ref(share)
    return (*before, with_arguments(node, {"size": tuple(sizes)}))


def _slice(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    if survival.keep(a["self"], a["dim"]) is None:
        return node
    size = survival.analysis.shape_of(a["self"])[a["dim"]]
    start, stop, _ = slice(a["start"], a["end"]).indices(size)
    bounds = (survival.before(a["self"], a["dim"], edge) for edge in (start, stop))
    return with_arguments(node, dict(zip(("start", "end"), bounds, strict=True)))


def _select(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    index = a["index"] % survival.analysis.shape_of(a["self"])[a["dim"]]
    return with_arguments(node, {"index": survival.before(a["self"], a["dim"], index)})


def _narrow(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    if survival.keep(a["self"], a["dim"]) is None:
        return node
    start = a["start"] % survival.analysis.shape_of(a["self"])[a["dim"]]
    first = survival.before(a["self"], a["dim"], start)
    last = survival.before(a["self"], a["dim"], start + a["length"])
    return with_arguments(node, {"start": first, "length": last - first})


def _split(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    if survival.keep(a["self"], a["dim"]) is None:
        return node
    # An output that nothing reads has no name, but the schema's own rule gives its size.
    edges = _edges(a, survival.analysis.shape_of(a["self"])[a["dim"]])
    kept = [survival.before(a["self"], a["dim"], edge) for edge in edges]
    sizes = tuple(int(size) for size in np.diff(kept))
    return replace(
        node, op="aten.split_with_sizes.default", args=(a["self"], sizes, a["dim"]), kwargs={}
    )


def _edges(a: dict[str, Any], total: int) -> list[int]:
    """Where the pieces of a split begin, and where the last one ends."""
    if "indices" in a:
        return [0, *a["indices"], total]
    if "sections" in a:
        each, longer = divmod(total, a["sections"])
        pieces = [each + (i < longer) for i in range(a["sections"])]
    elif "chunks" in a or isinstance(a.get("split_size"), int):
        each = math.ceil(total / a["chunks"]) if "chunks" in a else a["split_size"]
        pieces = [each] * (total // each) + ([total % each] if total % each else [])
    else:
        pieces = list(a.get("split_sizes") or a["split_size"])
    return [int(edge) for edge in np.cumsum([0, *pieces])]


def _repeat_interleave(node: Node, survival: Survival) -> Node:  # noqa: ARG001
    """Without the size of its output, which follows from what is repeated."""
    return with_arguments(node, {"output_size": None})


def _pad(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    rank, amounts = survival.rank(a["self"]), list(a["pad"])
    for i in range(len(amounts) // 2):
        dim = rank - 1 - i
        edges = (survival.keep(leaf, dim) for leaf in (a["self"], Ref(node.output)))
        source, result = (None if row is None else row.astype(int) for row in edges)
        front, back = amounts[2 * i : 2 * i + 2]
        # A negative amount crops the source; what survives of the cropped entries counts.
        if (edge := source if front < 0 else result) is not None:
            amounts[2 * i] = int(np.sign(front)) * int(edge[: abs(front)].sum())
        if (edge := source if back < 0 else result) is not None:
            amounts[2 * i + 1] = int(np.sign(back)) * int(edge[len(edge) - abs(back) :].sum())
    return with_arguments(node, {"pad": tuple(amounts)})


def _squeeze(node: Node, survival: Survival) -> Node:
    """Names the dimensions: one that is longer in the full network may have size 1 at a level."""
    a = _arguments(node)
    shape = survival.analysis.shape_of(a["self"])
    asked = a.get("dim", range(len(shape)))
    dims = (
        [dim % len(shape) for dim in ([asked] if isinstance(asked, int) else asked)]
        if shape
        else []
    )
    kept = tuple(dim for dim in dims if shape[dim] == 1)
    return replace(node, op="aten.squeeze.dims", args=(a["self"], kept), kwargs={})


def _groups(argument: str) -> Callable[[Node, Survival], Node]:
    """Rewrites a number of groups: those of the input's channels of which some survive."""

    def rewrite(node: Node, survival: Survival) -> Node:
        a = _arguments(node)
        kept = survival.keep(a["input"], 1)
        if a[argument] == 1 or kept is None:
            return node
        groups = kept.reshape(a[argument], -1).any(axis=1)
        return with_arguments(node, {argument: int(groups.sum())})

    return rewrite


def _convolution(node: Node, survival: Survival) -> Node:
    node = _groups("groups")(node, survival)
    a = _arguments(node)
    kernel = survival.analysis.shape_of(a["weight"])[2:]
    kept = survival.sizes(a["weight"])[2:]
    rings = [0 if k is None else (size - k) // 2 for size, k in zip(kernel, kept, strict=True)]
    return with_arguments(node, {"padding": padding_without(a, rings)}) if any(rings) else node


def _normalized_shape(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    sizes = survival.sizes(a["input"])[-len(a["normalized_shape"]) :]
    return with_arguments(node, {"normalized_shape": _cut(tuple(a["normalized_shape"]), sizes)})


def _attention_scale(node: Node, survival: Survival) -> Node:
    a = _arguments(node)
    if a["scale"] is not None or survival.keep(a["query"], -1) is None:
        return node
    # The default follows the width of what it is given; the network's own is the full width's.
    width = survival.analysis.shape_of(a["query"])[-1]
    return with_arguments(node, {"scale": 1.0 / math.sqrt(width)})


_MADE = frozenset(
    f"aten.{name}.default"
    for name in ("expand", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
)

_REWRITES: dict[str, Callable[[Node, Survival], Node]] = {
    "aten.reshape.default": _resize("shape"),
    "aten.unflatten.int": _resize("sizes"),
    "aten.slice_scatter.default": _slice,
    "aten.select_scatter.default": _select,
    "aten.tensor_split.indices": _split,
    "aten.tensor_split.sections": _split,
    "aten.repeat_interleave.self_int": _repeat_interleave,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.narrow.default": _narrow,
    "aten.chunk.default": _split,
    "aten.split.Tensor": _split,
    "aten.split.sizes": _split,
    "aten.split_with_sizes.default": _split,
    "aten.pad.default": _pad,
    "aten.squeeze.default": _squeeze,
    "aten.squeeze.dim": _squeeze,
    "aten.squeeze.dims": _squeeze,
    "aten.group_norm.default": _groups("num_groups"),
    "aten.layer_norm.default": _normalized_shape,
    "aten.rms_norm.default": _normalized_shape,
    "aten.scaled_dot_product_attention.default": _attention_scale,
    **{
        f"aten.conv{kind}": _convolution
        for kind in (
            *(f"{n}d.default" for n in (1, 2, 3)),
            *(f"{n}d.padding" for n in (1, 2, 3)),
            "_transpose1d.default",
            "_transpose2d.input",
            "_transpose3d.input",
        )
    },
}
