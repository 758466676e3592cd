"""Subnets that are drawn while a supernet trains: levels for as long as they are of use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Any

from nestedge.errors import UsageError
from nestedge.inputs import as_call
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.plan import BatchNorm, batch_norm_tensors
from nestedge.program.arguments import with_arguments
from nestedge.program.graph import Node, Program, run
from nestedge.program.structure import rebuild

_DROPOUT: dict[str, dict[str, bool | float]] = {
    "aten.dropout.default": {"train": False},
    "aten.feature_dropout.default": {"train": False},
    "aten.scaled_dot_product_attention.default": {"dropout_p": 0.0},
    "aten.lstm.input": {"dropout": 0.0},
    "aten.gru.input": {"dropout": 0.0},
}
"""For every operator that drops values the argument under which it drops none."""


@contextmanager
def temporary_level(nested: NestedModel, level: Level, *, batch_norm: BatchNorm) -> Iterator[str]:
    """The name of a level that a network has for as long as the `with` block runs.

    Args:
        nested: the network.
        level: of it.
        batch_norm: which batch-norm tensors it has of its own; it has no others.

    Raises:
        UsageError: the level is out of range.
    """
    name = next(n for i in count() if (n := f"_temporary-{i}") not in nested.levels)
    nested.add_level(name, level, batch_norm=batch_norm, own=())
    try:
        yield name
    finally:
        nested.remove_level(name)


class Subnets:
    """Subnets of a network, added as levels when they are first asked for.

    They have no tensors of their own. The one that was not asked for the longest goes when there
    are more than a limit, and all go when the `with` block ends; a network that is saved within the
    block has those that it holds then as levels.

    Args:
        nested: the network.
        limit: how many subnets to hold, whose programs need not be made again.

    Raises:
        UsageError: the limit is below 1.
    """

    def __init__(self, nested: NestedModel, *, limit: int = 64) -> None:
        if limit < 1:
            raise UsageError(f"limit: expected 1 or more subnets, found {limit}")
        self._nested = nested
        self._limit = limit
        self._names: dict[str, str] = {}
        self._programs: dict[str, Program] = {}
        self._numbers = count()

    def __enter__(self) -> Subnets:
        """These subnets."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove them all."""
        self.close()

    def close(self) -> None:
        """Remove them all."""
        while self._names:
            self._remove(next(iter(self._names)))

    def name_of(self, level: Level) -> str:
        """The name of the level that a subnet is.

        Raises:
            UsageError: the level has masks, or is out of range.
        """
        if level.masks:
            raise UsageError("subnets: expected a level without masks")
        key = repr(level)
        name = self._names.pop(key, None)
        if name is None:
            if len(self._names) == self._limit:
                self._remove(next(iter(self._names)))
            names = (f"_subnet-{number}" for number in self._numbers)
            name = next(name for name in names if name not in self._nested.levels)
            self._nested.add_level(name, level, batch_norm="shared", own=())
        # Put back as the last one: the first of the dict is the one to go.
        self._names[key] = name
        return name

    def run(self, level: Level, inputs: Any) -> Any:
        """What a subnet gives in training mode, without dropout, for the inputs of a batch.

        Its batch norms use the statistics of the batch and leave the stored ones alone.

        Raises:
            UsageError: the level has masks or is out of range, or the inputs do not fit.
        """
        nested, name = self._nested, self.name_of(level)
        args, kwargs = as_call(inputs)
        plan = nested.plan(name, "train")
        if name not in self._programs:
            self._programs[name] = without_dropout(plan.program)
        program, tensors = self._programs[name], nested.weights(plan, name)
        for statistic in batch_norm_tensors(program, "statistics"):
            if statistic in tensors:
                tensors[statistic] = tensors[statistic].clone()
        outputs = run(program, tensors, nested.leaves(*args, **kwargs))
        return rebuild(program.results, iter(outputs))

    def _remove(self, key: str) -> None:
        name = self._names.pop(key)
        self._programs.pop(name, None)
        self._nested.remove_level(name)


def without_dropout(program: Program) -> Program:
    """The program with every dropout as in evaluation."""

    def quiet(node: Node) -> Node:
        return with_arguments(node, _DROPOUT[node.op]) if node.op in _DROPOUT else node

    return replace(program, nodes=tuple(quiet(node) for node in program.nodes))
