"""Channels in the order of their importance, so that a subnet's first ones are the best ones.

The network computes what it did before: all that has the channels is permuted alike. Once-for-all
(Cai et al., 2020, arXiv:1908.09791) and delayed epsilon-shrinking (Annavajjala et al., ECCV 2024)
sort the channels inside a block before they train narrower ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import Optimizer

from nestedge.errors import UsageError
from nestedge.intervals import entries
from nestedge.model import NestedModel
from nestedge.nesting import Nesting
from nestedge.plan import cut
from nestedge.program import operators
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Weight
from nestedge.training.permutation import Moves, Order, covers, moves_of, permutable, permuted
from nestedge.training.space import fitting
from nestedge.tree import named

Importance = Callable[[NestedModel, str], torch.Tensor]
"""The importance of every unit of an axis, of shape (units,)."""


@dataclass(frozen=True)
class Sorting:
    """What was sorted.

    Attributes:
        orders: for every sorted axis the former number of the unit that now stands at each place.
        left: axes that are as they were, because the network tells their units apart by where
            they stand.
    """

    orders: Mapping[str, tuple[int, ...]]
    left: tuple[str, ...]


def sort_channels(
    nested: NestedModel,
    *,
    axes: Iterable[str] = ("*",),
    importance: Importance | None = None,
    optimizer: Optimizer | None = None,
) -> Sorting:
    """Permute the units of axes so that the most important ones come first.

    The full network, and every level that keeps the sorted axes whole, computes what it did. A
    level that keeps the first units of one has the most important ones from now on: it is another
    level, and what it has of its own (batch-norm sets) starts anew from the full network's.

    Whether an axis can be sorted is a matter of the program alone, and is tried beforehand: with
    random weights and inputs, shuffling its units must not change the output of the evaluation and
    of the training program. Axes that fail are left alone.

    Args:
        nested: the network.
        axes: patterns of names of widths and head widths.
        importance: of the units of an axis; `reading_importance` unless given.
        optimizer: of the network; its state (momentum) is permuted with the weights.

    Raises:
        UsageError: a pattern fits no such axis, a level keeps listed units of an axis or is masked
            and cuts it, scale factors are being trained, the importance is not a finite number for
            every unit, the optimizer's state cannot be permuted, or training mode cannot be
            captured.
    """
    nesting = nested.nesting
    known = _sortable_axes(nested)
    wanted = dict.fromkeys(n for pattern in axes for n in fitting(pattern, known, where="axes"))
    sortable = permutable(nested, list(wanted))
    _check_levels(nesting, sortable)
    if len(nested.views):
        raise UsageError("scale factors are being trained: sort channels before, or fold them")
    measure = importance or reading_importance
    orders = {axis: _descending(measure(nested, axis), axis, nested) for axis in sortable}
    moves = moves_of(nesting, orders)
    _check_state(nested, moves, optimizer)
    with torch.no_grad():
        _permute(nested, moves, optimizer)
        for level in nested.nesting.levels:
            _permute_own(nested, level, orders, optimizer)
    found = {axis: tuple(int(unit) for unit in order) for axis, order in orders.items()}
    return Sorting(found, tuple(axis for axis in wanted if axis not in orders))


def sort_after(
    epoch: int,
    nested: NestedModel,
    *,
    axes: Iterable[str] = ("*",),
    importance: Importance | None = None,
    optimizer: Optimizer | None = None,
) -> Callable[[int], None]:
    """Sorts channels once an epoch, from 0, is over: for `after_epoch` of the training loop.

    Before subnets are trained that is `shrinking.begins - 1`. The others are as in
    `sort_channels`.
    """
    patterns = tuple(axes)

    def after_epoch(done: int) -> None:
        if done == epoch:
            sort_channels(nested, axes=patterns, importance=importance, optimizer=optimizer)

    return after_epoch


def reading_importance(nested: NestedModel, axis: str) -> torch.Tensor:
    """The sum of the magnitudes of all weights that read a unit.

    Those of convolutions and linear layers that have the axis among their inputs; a depthwise
    convolution has not. Where there is none, as for queries and keys, all parameters that have the
    axis count.

    Returns:
        Shape (units,), dtype float64.
    """
    program, shared = nested.elastic.program, named(nested.shared)
    reads = {place for node in program.nodes if (place := _reading(node, program)) is not None}
    has_axis = list(covers(nested.nesting, axis))
    reading = [cover for cover in has_axis if cover[:2] in reads]
    parameters = [cover for cover in has_axis if program.tensors[cover[0]].role == "parameter"]
    scores = torch.zeros(nested.nesting.axes[axis].size, dtype=torch.float64)
    for tensor, dim, labels in reading or parameters:
        weights = shared[tensor].detach().abs().movedim(dim, 0).reshape(len(labels), -1).sum(1)
        has = torch.from_numpy(labels >= 0)
        scores.index_add_(0, torch.from_numpy(labels)[has], weights.cpu().double()[has])
    return scores


_READS = {
    **dict.fromkeys(operators.CONVOLUTION, ("weight", 1)),
    **dict.fromkeys(operators.TRANSPOSED_CONVOLUTION, ("weight", 0)),
    "aten.linear.default": ("weight", 1),
    "aten.matmul.default": ("other", -2),
    "aten.mm.default": ("mat2", 0),
    "aten.addmm.default": ("mat2", 0),
}
"""For every operator that reads channels by a weight its argument and the dimension of inputs."""


def _reading(node: Node, program: Program) -> tuple[str, int] | None:
    if node.op not in _READS:
        return None
    argument, dim = _READS[node.op]
    leaf = named_arguments(node, lambda leaf: leaf)[argument]
    if not isinstance(leaf, Weight):
        return None
    return leaf.name, dim % len(program.tensors[leaf.name].shape)


def _sortable_axes(nested: NestedModel) -> list[str]:
    """The axes of channels, those of weights aside that evaluation does not read."""
    axes, used = nested.nesting.axes, nested.elastic.program.used_tensors()
    of_channels = [name for name, axis in axes.items() if axis.kind in ("width", "head_width")]
    return [n for n in of_channels if any(t in used for t, _, _ in covers(nested.nesting, n))]


def _descending(scores: torch.Tensor, axis: str, nested: NestedModel) -> Order:
    size = nested.nesting.axes[axis].size
    if scores.shape != (size,) or not scores.isfinite().all():
        raise UsageError(
            f"importance of axis {axis!r}: expected {size} finite numbers, found shape "
            f"{tuple(scores.shape)}, {int(scores.isfinite().sum())} of them finite"
        )
    # A stable sort, so that equal scores keep their order on every platform.
    return np.argsort(-scores.detach().cpu().double().numpy(), kind="stable")


def _check_levels(nesting: Nesting, axes: Iterable[str]) -> None:
    """Check that the levels which cut an axis keep its first units."""
    for level, choice in nesting.levels.items():
        for axis in choice.kept.keys() & set(axes):
            kept = choice.kept[axis]
            if nesting.is_masked(level) or not (kept == () or (len(kept) == 1 and not kept[0][0])):
                raise UsageError(
                    f"level {level!r}, axis {axis!r}: expected its first units, without masks, "
                    f"found {'masks' if nesting.is_masked(level) else list(kept)}; remove the "
                    "level, sort, and add it again, or sort other axes"
                )


def _check_state(nested: NestedModel, moves: Moves, optimizer: Optimizer | None) -> None:
    """Check that all state of moved weights can move with them."""
    for name, parameter in named(nested.shared).items() if optimizer is not None else ():
        assert optimizer is not None, "the loop is empty without one"
        for key, value in _state(optimizer, parameter).items() if name in moves else ():
            if value.numel() > 1 and value.shape != parameter.shape:
                raise UsageError(
                    f"optimizer, {key!r} of {name!r}: expected shape {tuple(parameter.shape)}, "
                    f"found {tuple(value.shape)}, which cannot be permuted with the weight"
                )


def _state(optimizer: Optimizer | None, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an optimizer keeps for a parameter."""
    if optimizer is None or tensor not in optimizer.state:
        return {}
    state = optimizer.state[tensor]
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _permute(nested: NestedModel, moves: Moves, optimizer: Optimizer | None) -> None:
    shared, codes = named(nested.shared), named(nested.codes)
    for name, orders in moves.items():
        for tensor in (shared[name], codes.get(name)):
            if tensor is not None:
                tensor.copy_(permuted(tensor, orders))
        _permute_state(optimizer, shared[name], orders)


def _permute_state(
    optimizer: Optimizer | None, parameter: torch.Tensor, orders: Sequence[tuple[int, Order]]
) -> None:
    for value in _state(optimizer, parameter).values():
        if value.shape == parameter.shape:
            value.copy_(permuted(value, orders))


def _permute_own(
    nested: NestedModel, level: str, orders: Mapping[str, Order], optimizer: Optimizer | None
) -> None:
    """Permute what a level has of its own; begin anew where it cuts what was sorted."""
    nesting, shared = nested.nesting, named(nested.shared)
    kept = nesting.choice(level).kept
    cutting = moves_of(nesting, {axis: order for axis, order in orders.items() if axis in kept})
    whole = moves_of(nesting, {axis: order for axis, order in orders.items() if axis not in kept})
    for name, tensor in nested.own_tensors(level).items():
        uses = nesting.uses(level, name)
        if name in cutting:
            tensor.copy_(cut(shared[name], uses))
            if optimizer is not None:
                optimizer.state.pop(tensor, None)
            continue
        assert uses is not None, "a level has no tensor of a block that it leaves out"
        moved = [
            (dim, _within(order, entries(uses[dim], len(order))))
            for dim, order in whole.get(name, ())
        ]
        tensor.copy_(permuted(tensor, moved))
        _permute_state(optimizer, tensor, moved)


def _within(order: Order, kept: npt.NDArray[np.bool_]) -> Order:
    """The order of the entries that a level keeps, numbered among themselves."""
    numbers = np.cumsum(kept) - 1
    found: Order = numbers[order[kept]]
    return found
