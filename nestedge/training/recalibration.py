"""Batch-norm statistics of levels, measured anew.

A narrower level feeds its batch norms other distributions than the full network does, so that the
statistics of one are wrong for the other: a level added after training, or trained with shared
statistics, needs its own (US-Nets, Yu & Huang, 2019, arXiv:1903.05134; once-for-all's
`set_running_statistics`, Cai et al., 2020, arXiv:1908.09791).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from nestedge.errors import UsageError
from nestedge.inputs import as_call
from nestedge.model import NestedModel
from nestedge.plan import Plan
from nestedge.program.arguments import named_arguments, with_arguments
from nestedge.program.graph import Node, Program, Weight, run
from nestedge.training.batches import Batches, read_batches


@dataclass(frozen=True)
class _Measured:
    """A level whose statistics are being measured.

    Attributes:
        name: of the level, None for the full network.
        plan: how it is evaluated.
        stored: the statistics as the network has them, by tensor name.
        tensors: all tensors of the level, with new statistics in place of the stored ones.
    """

    name: str | None
    plan: Plan
    stored: dict[str, torch.Tensor]
    tensors: dict[str, torch.Tensor]


def recalibrate(
    nested: NestedModel, batches: Batches, *, levels: Iterable[str] | None = None
) -> None:
    """Give levels the batch-norm statistics of some data.

    The mean over the batches of each batch's mean and (unbiased) variance, every batch counting
    alike: what a torch batch norm with momentum=None gathers. Dropout is off, parameters stay as
    they are, and nothing is stored unless all batches went through.

    Args:
        nested: the network, in any mode.
        batches: training data without heavy augmentation; once-for-all uses 2000 images. The
            targets are not looked at.
        levels: which levels, of a consensus its members; None is all of them and the full network
            too, since the statistics of the full network are what it runs with outside `at`, and
            what a level that is added later starts from. A level that is the whole network shares
            its statistics.

    Raises:
        UsageError: there is no such level, no batch, or a batch of one value per channel.
        NestedgeError: a batch does not fit the network.
    """
    measured = [_begin(nested, name) for name in _targets(nested, levels)]
    with torch.no_grad():
        for index, (inputs, _) in enumerate(read_batches(batches)):
            args, kwargs = as_call(inputs)
            leaves = nested.leaves(*args, **kwargs)
            for level in measured:
                operate = nested.operation(level.name, level.plan) if nested.operation else None
                program = _gathering(level.plan.program, index)
                run(program, level.tensors, leaves, operate=operate)
                _check(level, index)
        for level in measured:
            for name, tensor in level.stored.items():
                tensor.copy_(level.tensors[name])


def _targets(nested: NestedModel, levels: Iterable[str] | None) -> list[str | None]:
    """The levels to measure; those that share the full network's statistics are one: None."""
    asked = [*nested.levels, None] if levels is None else list(levels)
    # The statistics of a consensus are those of its members.
    wanted = [n for name in asked for n in (nested.nesting.members(name) if name else (None,))]
    return list(dict.fromkeys(n if n is None or nested.own_tensors(n) else None for n in wanted))


def _begin(nested: NestedModel, name: str | None) -> _Measured:
    plan = nested.plan(name)
    tensors = {key: tensor.detach() for key, tensor in nested.weights(plan, name).items()}
    keys = {key for node in plan.program.nodes for key in _statistics(node)}
    stored = {key: tensors[key] for key in sorted(keys)}
    fresh = {key: torch.zeros_like(tensor) for key, tensor in stored.items()}
    return _Measured(name, plan, stored, {**tensors, **fresh})


def _statistics(node: Node) -> list[str]:
    """The names of the stored running mean and variance that a node reads."""
    if node.op != "aten.batch_norm.default":
        return []
    given = named_arguments(node, lambda leaf: leaf)
    read = (given["running_mean"], given["running_var"])
    return [leaf.name for leaf in read if isinstance(leaf, Weight)]


def _gathering(program: Program, batch: int) -> Program:
    """The program with batch norms that use batch statistics, and average them into their own.

    Args:
        program: an evaluation program.
        batch: how many batches went before.
    """
    uses = Counter(key for node in program.nodes for key in _statistics(node)[:1])
    return replace(program, nodes=tuple(_gathering_nodes(program, uses, batch)))


def _gathering_nodes(program: Program, uses: Counter[str], batch: int) -> Iterator[Node]:
    seen: Counter[str] = Counter()
    for node in program.nodes:
        keys = _statistics(node)
        if not keys:
            yield node
            continue
        # A batch norm that is called several times updates its statistics as often per batch.
        seen[keys[0]] += 1
        momentum = 1 / (batch * uses[keys[0]] + seen[keys[0]])
        yield with_arguments(node, {"training": True, "momentum": momentum})


def _check(level: _Measured, batch: int) -> None:
    for name in level.stored:
        if not level.tensors[name].isfinite().all():
            where = "the full network" if level.name is None else f"level {level.name!r}"
            raise UsageError(
                f"batch {batch}, {where}: {name!r} became infinite or not a number; give batches "
                "of finite inputs, and of several images where a batch norm sees one pixel"
            )
