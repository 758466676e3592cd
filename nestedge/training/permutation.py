"""Permuting the units of axes, and which axes of a network can be permuted unseen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from nestedge.layouts import Run
from nestedge.model import NestedModel
from nestedge.nesting import Nesting
from nestedge.plan import batch_norm_tensors
from nestedge.program.arguments import with_arguments
from nestedge.program.graph import Node, Program, run
from nestedge.training.subnets import without_dropout
from nestedge.tree import named

Order = npt.NDArray[np.int64]
"""For every place of an axis, or of a dimension, the former number of what comes to stand there."""

Moves = Mapping[str, Sequence[tuple[int, Order]]]
"""The order of some dimensions of some tensors."""

_BATCH = 2


def covers(nesting: Nesting, axis: str) -> Iterator[tuple[str, int, Order]]:
    """Every dimension of every tensor that has an axis, with the unit of each entry, else -1."""
    for tensor, layout in nesting.tensors.items():
        for dim, rows in enumerate(layout.covers()):
            for runs in rows:
                if any(run.axis == axis for run in runs):
                    yield tensor, dim, np.concatenate([_units(run, axis) for run in runs])


def _units(run: Run, axis: str) -> Order:
    if run.axis != axis:
        return np.full(run.entries, -1, dtype=np.int64)
    return np.repeat(np.arange(run.start, run.stop, dtype=np.int64), run.repeat)


def moves_of(nesting: Nesting, orders: Mapping[str, Order]) -> dict[str, list[tuple[int, Order]]]:
    """How tensors are permuted when at every place of an axis its `order` says what stands there.

    A unit that has several entries of a dimension has the first of the other's where its first was,
    and so on.
    """
    found: dict[str, list[tuple[int, Order]]] = {}
    for axis, order in orders.items():
        for tensor, dim, labels in covers(nesting, axis):
            entry = np.arange(len(labels))
            # Row by row the entries of a unit, in order: all units have equally many.
            of_unit = np.argsort(labels, kind="stable")[(labels < 0).sum() :]
            of_unit = of_unit.reshape(len(order), -1)
            entry[of_unit] = of_unit[order]
            found.setdefault(tensor, []).append((dim, entry))
    return found


def permuted(tensor: torch.Tensor, moves: Sequence[tuple[int, Order]]) -> torch.Tensor:
    """A tensor with its dimensions in other orders."""
    for dim, entry in moves:
        tensor = tensor.index_select(dim, torch.from_numpy(entry).to(tensor.device))
    return tensor


def permutable(nested: NestedModel, axes: Sequence[str]) -> list[str]:
    """Those of some axes whose units the program tells apart by their weights alone.

    Each is tried: weights and inputs are drawn, the units shuffled, and the outputs compared, of
    the evaluation and of the training program. So it does not matter which weights the network has,
    and zeros of a fresh one hide nothing.

    Raises:
        UsageError: torch.export cannot take the network in training mode.
    """
    generator = np.random.default_rng(0)
    nesting = nested.nesting
    orders = {
        axis: generator.permutation(nesting.axes[axis].size)
        for axis in axes
        if _is_regular(nesting, axis)
    }
    trial = _trial(nested)
    if trial.is_unseen(moves_of(nesting, orders)):
        return list(orders)
    return [a for a, order in orders.items() if trial.is_unseen(moves_of(nesting, {a: order}))]


def _is_regular(nesting: Nesting, axis: str) -> bool:
    """Whether all units have equally many entries wherever the axis stands."""
    size = nesting.axes[axis].size
    counts = (np.bincount(u[u >= 0], minlength=size) for _, _, u in covers(nesting, axis))
    return all((count == count[0]).all() for count in counts)


@dataclass(frozen=True)
class _Trial:
    """What is run before and after units are shuffled.

    Attributes:
        programs: with neither dropout nor statistics of the batch.
        tensors: weights, drawn.
        inputs: likewise, where they are no indices.
    """

    programs: tuple[Program, ...]
    tensors: Mapping[str, torch.Tensor]
    inputs: Sequence[torch.Tensor]

    def is_unseen(self, moves: Moves) -> bool:
        """Whether the outputs are what they were, rounding aside."""
        moved = {n: permuted(t, moves.get(n, ())) for n, t in self.tensors.items()}
        pairs = zip(self._outputs(self.tensors), self._outputs(moved), strict=True)
        return all(_is_close(before, after) for before, after in pairs)

    def _outputs(self, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        found = []
        with torch.no_grad():
            for program in self.programs:
                # Counters of batches are updated in place.
                copied = {name: tensor.clone() for name, tensor in tensors.items()}
                found += run(program, copied, self.inputs)
        return found


def _is_close(before: torch.Tensor, after: torch.Tensor) -> bool:
    if not before.is_floating_point():
        return torch.equal(before, after)
    tolerance = torch.finfo(before.dtype).eps ** 0.5 * float(before.abs().max())
    return bool(((before - after).abs() <= tolerance).all())


def _trial(nested: NestedModel) -> _Trial:
    generator = torch.Generator().manual_seed(0)
    programs = (nested.elastic.program, nested.training_program)
    statistics = set(batch_norm_tensors(programs[0], "statistics"))
    tensors = {}
    for name, tensor in named(nested.shared).items():
        is_drawn = isinstance(tensor, torch.nn.Parameter) or name in statistics
        found = tensor.detach().cpu()
        # Constants and indices mean something.
        is_drawn = is_drawn and found.is_floating_point()
        tensors[name] = _drawn(found, generator) if is_drawn else found
    inputs = []
    for spec in nested.elastic.program.inputs:
        example = nested.examples[spec.name].cpu().expand(spec.shape_at(_BATCH))
        is_drawn = example.is_floating_point()
        inputs.append(_normal(example, generator) if is_drawn else example.clone())
    return _Trial(tuple(_settled(without_dropout(p)) for p in programs), tensors, inputs)


def _normal(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)


def _drawn(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weights of a layer that keep the size of what goes through; others between 0.5 and 1.5."""
    if tensor.dim() < 2:
        return (torch.rand(tensor.shape, generator=generator) + 0.5).to(tensor.dtype)
    variance = 1.5 * tensor.shape[0] / max(1, tensor.numel())
    return _normal(tensor, generator) * math.sqrt(variance)


def _settled(program: Program) -> Program:
    """The program with batch norms that use the stored statistics."""

    def settle(node: Node) -> Node:
        is_norm = node.op == "aten.batch_norm.default"
        return with_arguments(node, {"training": False}) if is_norm else node

    return replace(program, nodes=tuple(settle(node) for node in program.nodes))
