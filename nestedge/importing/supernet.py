"""Supernets with elastic depth, expansion and kernels: once-for-all and its followers.

Cai et al., 2020, arXiv:1908.09791; delayed shrinking, Annavajjala et al., 2024. A subnet keeps the
first blocks of every stage, the first channels of a block's expansion, and the inside of a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from nestedge.axes.blocks import Stage
from nestedge.card import Card
from nestedge.errors import UsageError
from nestedge.importing.checkpoint import check_complete, match_tied, write
from nestedge.importing.expansions import Expansion, find_expansions
from nestedge.importing.kernels import (
    has_transforms,
    is_transform,
    reduced_kernel,
)
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.tree import named

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Subnet:
    """One network of a supernet.

    Attributes:
        depth: blocks of every elastic stage, or of each in order ("d" of once-for-all).
        expand: channels between a block's convolutions as a multiple of those that enter it, for
            every expanding block, or for each in order, left-out ones too ("e").
        kernel: of the depthwise convolutions, likewise ("ks"); None for those of the model.
    """

    depth: int | Sequence[int]
    expand: float | Sequence[float]
    kernel: int | Sequence[int] | None = None


@dataclass(frozen=True)
class _Choice:
    """A subnet with a number for every stage and block.

    Attributes:
        depth: for every elastic stage how many blocks.
        expand: for every expanding block.
        kernel: likewise.
        dropped: the paths of the blocks that are left out.
    """

    depth: Mapping[str, int]
    expand: Sequence[float]
    kernel: Sequence[int]
    dropped: frozenset[str]


def from_supernet(
    model: nn.Module,
    example_inputs: Any,
    checkpoint: Mapping[str, torch.Tensor],
    subnets: Mapping[str, Subnet],
    *,
    card: Card | None = None,
    calibration: Any = None,
) -> NestedModel:
    """Nest a plain module with the weights of a once-for-all supernet.

    Channels and blocks count as they are stored. Every level starts with the first entries of the
    supernet's batch-norm statistics, which are no subnet's: call `nestedge.recalibrate` next.

    A level's kernel is the inside of the model's. Where the checkpoint has matrices for kernels, a
    smaller one is made by them: once, where the model's own kernels are smaller than the
    checkpoint's, but not for one level.

    Args:
        model: the network of inverted residual blocks at its deepest and widest, plain.
        example_inputs: as `nest` takes them.
        checkpoint: the supernet's state dict, which is not changed.
        subnets: for each level its subnet.
        card: as `nest` takes it; channels are rounded to multiples of its divisor.
        calibration: as `nest` takes it.

    Raises:
        UsageError: a name of the model or of the checkpoint has no partner, a list has another
            length, a number is out of range, or a level would need a matrix for its kernels.
    """
    nested = nest(model, example_inputs, {}, card=card, calibration=calibration)
    sources = _write_shared(nested, model, checkpoint)
    blocks = find_expansions(nested)
    if not blocks:
        raise UsageError(
            "found no expanding block: a convolution to more channels, then a depthwise one"
        )
    # The first block of once-for-all does not expand, and is no stage of its own.
    stages = [s for s in nested.elastic.stages if any(_is_inside(b, s.blocks) for b in blocks)]
    choices = {name: _choice(name, subnet, stages, blocks) for name, subnet in subnets.items()}
    for name, choice in choices.items():
        width: dict[str, int] = {}
        kernels: dict[str, int] = {}
        for index, block in enumerate(blocks):
            # Of a block that it leaves out a level has as little as any level, so that they nest.
            others = choices.values() if _is_inside(block, choice.dropped) else [choice]
            expand = min(other.expand[index] for other in others)
            kernel = min(other.kernel[index] for other in others)
            where = f"level {name!r}, block of {block.depthwise!r}"
            width |= block.widths(expand, divisor=nested.card.divisor, where=where)
            if kernel != block.kernel:
                transformed = has_transforms(checkpoint, sources[block.depthwise])
                _check_kernel(kernel, block.kernel, transformed=transformed, where=where)
                kernels[_kernel_axis(nested, block, where)] = kernel
        nested.add_level(name, Level(width=width, depth=choice.depth, kernel=kernels or None))
    return nested


def _choice(
    level: str, subnet: Subnet, stages: Sequence[Stage], blocks: Sequence[Expansion]
) -> _Choice:
    where = f"level {level!r}"
    depths = _listed(subnet.depth, stages, f"{where}: depth")
    for stage, count in zip(stages, depths, strict=True):
        if not 1 <= count <= len(stage.blocks):
            raise UsageError(
                f"{where}, stage {stage.name!r}: expected 1 to {len(stage.blocks)} blocks, "
                f"found {count}"
            )
    depth = {stage.name: count for stage, count in zip(stages, depths, strict=True)}
    dropped = frozenset(path for s in stages for path in s.blocks[depth[s.name] :])
    own = [block.kernel for block in blocks]
    kernel = own if subnet.kernel is None else _listed(subnet.kernel, blocks, f"{where}: kernel")
    return _Choice(depth, _listed(subnet.expand, blocks, f"{where}: expand"), kernel, dropped)


def _is_inside(block: Expansion, paths: Iterable[str]) -> bool:
    return any(block.depthwise.startswith(f"{path}.") for path in paths)


def _listed(
    value: Number | Sequence[Number], of: Sequence[Stage | Expansion], where: str
) -> list[Number]:
    if not isinstance(value, Sequence):
        return [value] * len(of)
    if len(value) != len(of):
        names = [item.name for item in of]
        raise UsageError(f"{where}: expected {len(of)} numbers for {names}, found {len(value)}")
    return list(value)


def _kernel_axis(nested: NestedModel, block: Expansion, where: str) -> str:
    for run in nested.nesting.tensors[block.depthwise].dims[2]:
        if run.axis is not None:
            return run.axis
    raise UsageError(
        f"{where}: its convolution has no padding that a smaller kernel could do without"
    )


def _check_kernel(kernel: int, largest: int, *, transformed: bool, where: str) -> None:
    if not 0 < kernel < largest or (largest - kernel) % 2:
        raise UsageError(f"{where}: expected kernel {largest}, or 2, 4, ... less, found {kernel}")
    if transformed:
        raise UsageError(
            f"{where}: the checkpoint makes a kernel of {kernel} by a matrix of the one of "
            f"{largest} that the model has, so that levels would share none of its weights; import "
            "the levels of each kernel into a file of their own, with a model of that kernel"
        )


def _write_shared(
    nested: NestedModel, model: nn.Module, checkpoint: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """Writes the weights; gives for every name of the model that of the checkpoint."""
    shared = named(nested.shared)
    rest = [key for key in checkpoint if not is_transform(key)]
    wanted = [name for name in model.state_dict() if name in shared]
    sources, unread = match_tied(wanted, rest, nested.aliases)
    check_complete([name for name in wanted if name not in sources], unread)
    for name, value in _values(shared, checkpoint, sources):
        write(shared[name], value, name=name, source=sources[name])
    return sources


def _values(
    shared: Mapping[str, torch.Tensor],
    checkpoint: Mapping[str, torch.Tensor],
    sources: Mapping[str, str],
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, source in sources.items():
        value = checkpoint[source]
        if value.dim() == shared[name].dim() == 4 and value.shape[2:] != shared[name].shape[2:]:
            value = reduced_kernel(checkpoint, source, shared[name].shape[-1])
        yield name, value
