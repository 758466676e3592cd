"""Slimmable networks (Yu et al., 2019, arXiv:1812.08928): one batch norm for every width.

Their checkpoints hold, where a plain network has a batch norm called `norm`, a list of them:
`norm.bn.0.weight`, `norm.bn.1.weight` and so on, one for each width. US-Nets (Yu & Huang, 2019,
arXiv:1903.05134) keep only the statistics in such a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nestedge.card import Card
from nestedge.errors import UsageError
from nestedge.importing.checkpoint import check_complete, exact_units, match_tied, write
from nestedge.levels import Level, Share, Units
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.plan import batch_norm_tensors, cut
from nestedge.tree import named


@dataclass(frozen=True)
class _Norm:
    """One batch norm of the model in a checkpoint.

    Attributes:
        name: of the norm's module.
        plain: for "weight", "bias" and so on the name in the checkpoint, where all widths share it.
        listed: the same where each width has its own, in the order of the list.
        channels: for each width how many channels the list has; empty where there is no list.
    """

    name: str
    plain: Mapping[str, str]
    listed: Mapping[str, tuple[str, ...]]
    channels: tuple[int, ...]

    def source(self, leaf: str, index: int) -> str | None:
        """The checkpoint's name of a tensor at a width."""
        return self.listed[leaf][index] if leaf in self.listed else self.plain.get(leaf)

    def sources(self) -> Iterator[str]:
        """All names of the checkpoint that are the norm's."""
        yield from self.plain.values()
        for names in self.listed.values():
            yield from names


def from_slimmable(
    model: nn.Module,
    example_inputs: Any,
    checkpoint: Mapping[str, torch.Tensor],
    levels: Mapping[str, Level | float],
    *,
    card: Card | None = None,
    calibration: Any = None,
) -> NestedModel:
    """Nest a plain module with the weights of a slimmable network and its switchable batch norms.

    Args:
        model: the network at its widest, with one plain batch norm in place of each list.
        example_inputs: as `nest` takes them.
        checkpoint: the slimmable network's state dict, which is not changed.
        levels: in the order of the checkpoint's lists. How many channels a level has where there
            is a batch norm, the checkpoint says; elsewhere the width given here counts, and has
            to be a whole number of channels.
        card: as `nest` takes it.
        calibration: as `nest` takes it.

    Raises:
        UsageError: a name of the model or of the checkpoint has no partner, a list has another
            length, the widest level is not the whole model, or a level is not a prefix.
    """
    nested = nest(model, example_inputs, {}, card=card, calibration=calibration)
    norms = [_norm(name, checkpoint, len(levels)) for name in _norm_names(nested)]
    _check_policy(nested, norms)
    full = _widest(nested, norms, levels)
    _write_shared(nested, model, checkpoint, norms, full)
    for index, (name, level) in enumerate(levels.items()):
        asked = level if isinstance(level, Level) else Level(width=level)
        width = {**_asked_width(nested, norms, name, asked.width), **_widths(nested, norms, index)}
        nested.add_level(name, replace(asked, width=width))
        _write_own(nested, name, checkpoint, norms, index)
        if index != full and not nested.own_tensors(name):
            raise UsageError(
                f"level {name!r} is the whole network, as {list(levels)[full]!r} is; their batch "
                "norms cannot differ: leave one of them out of the checkpoint"
            )
    return nested


def _norm_names(nested: NestedModel) -> list[str]:
    tensors = batch_norm_tensors(nested.elastic.program, "switchable")
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def _norm(name: str, checkpoint: Mapping[str, torch.Tensor], count: int) -> _Norm:
    pattern = re.compile(
        rf"(?:module\.)?{re.escape(name)}(?P<list>\.[A-Za-z_]\w*)?(?:\.(?P<index>\d+))?"
        r"\.(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"
    )
    plain: dict[str, str] = {}
    lists: dict[str, dict[int, str]] = {}
    for key in checkpoint:
        match = pattern.fullmatch(key)
        if match is None:
            continue
        if match["index"] is not None:
            places = lists.setdefault(match["leaf"], {})
            if int(match["index"]) in places:
                raise UsageError(f"norm {name!r} has two lists in the checkpoint; rename one")
            places[int(match["index"])] = key
        elif match["list"] is None:
            plain[match["leaf"]] = key
    for leaf, places in lists.items():
        if sorted(places) != list(range(count)):
            raise UsageError(
                f"norm {name!r}: the checkpoint has {leaf} for widths {sorted(places)}, and there "
                f"are {count} levels; name a level for each of its widths"
            )
    listed = {leaf: tuple(places[i] for i in range(count)) for leaf, places in lists.items()}
    sized = listed.get("running_mean") or listed.get("weight") or ()
    return _Norm(name, plain, listed, tuple(len(checkpoint[key]) for key in sized))


def _check_policy(nested: NestedModel, norms: list[_Norm]) -> None:
    if not any(norm.listed for norm in norms):
        raise UsageError(
            "the checkpoint has no list of batch norms for any of the model's, as in "
            f"'{norms[0].name}.bn.0.weight'"
            if norms
            else "the model has no batch norm"
        )
    for norm in norms:
        if "weight" in norm.listed and nested.card.batch_norm != "switchable":
            raise UsageError(
                f"norm {norm.name!r}: each width has a weight of its own; "
                "give Card(batch_norm='switchable')"
            )


def _widest(nested: NestedModel, norms: list[_Norm], levels: Mapping[str, object]) -> int:
    """The index of the level that is the whole model."""
    tensors = nested.elastic.program.tensors
    sizes = {norm.name: tensors[f"{norm.name}.running_mean"].shape[0] for norm in norms}
    listed = [norm for norm in norms if norm.channels]
    for index in reversed(range(len(levels))):
        if all(norm.channels[index] == sizes[norm.name] for norm in listed):
            return index
    widest = max(range(len(levels)), key=lambda index: sum(n.channels[index] for n in listed))
    wrong = next(norm for norm in listed if norm.channels[widest] != sizes[norm.name])
    raise UsageError(
        f"norm {wrong.name!r}: the widest level has {wrong.channels[widest]} channels in the "
        f"checkpoint, the model has {sizes[wrong.name]}; give the model at that level's width"
    )


def _write_shared(
    nested: NestedModel,
    model: nn.Module,
    checkpoint: Mapping[str, torch.Tensor],
    norms: list[_Norm],
    full: int,
) -> None:
    shared = named(nested.shared)
    in_norms = {source for norm in norms for source in norm.sources()}
    rest = {key: tensor for key, tensor in checkpoint.items() if key not in in_norms}
    prefixes = {norm.name for norm in norms}
    wanted = [n for n in model.state_dict() if n in shared]
    plain = [n for n in wanted if n.rpartition(".")[0] not in prefixes]
    sources, unread = match_tied(plain, rest, nested.aliases)
    for norm in norms:
        leaves = {n.rpartition(".")[2] for n in wanted if n.rpartition(".")[0] == norm.name}
        found = {leaf: norm.source(leaf, full) for leaf in leaves}
        sources |= {f"{norm.name}.{leaf}": key for leaf, key in found.items() if key is not None}
    check_complete([name for name in wanted if name not in sources], unread)
    for name, source in sources.items():
        write(shared[name], checkpoint[source], name=name, source=source)


def _axis_of(nested: NestedModel, norm: _Norm) -> tuple[str, int] | None:
    """The one axis that a norm's channels are, and how many channels a unit of it is."""
    (runs,) = nested.nesting.tensors[f"{norm.name}.running_mean"].dims
    if len(runs) == 1 and runs[0].axis is not None:
        return runs[0].axis, runs[0].repeat
    return None


def _widths(nested: NestedModel, norms: list[_Norm], index: int) -> dict[str, int]:
    """For every axis with batch norms its units at a level."""
    found: dict[str, tuple[int, str]] = {}
    for norm in norms:
        place = _axis_of(nested, norm)
        if place is None:
            continue
        axis, repeat = place
        size = nested.nesting.axes[axis].size
        channels = norm.channels[index] if norm.channels else size * repeat
        if channels % repeat:
            raise UsageError(
                f"norm {norm.name!r}: {channels} channels are no whole groups of {repeat}"
            )
        units, other = found.setdefault(axis, (channels // repeat, norm.name))
        if units != channels // repeat:
            raise UsageError(
                f"norms {other!r} and {norm.name!r} are of one axis, and the checkpoint has "
                f"{units * repeat} and {channels} channels for them; the model is another network"
            )
    return {axis: units for axis, (units, _) in found.items()}


def _asked_width(
    nested: NestedModel, norms: list[_Norm], level: str, width: Share | Mapping[str, Units]
) -> Mapping[str, Units]:
    """Widths of the axes that no batch norm tells."""
    if isinstance(width, Mapping):
        return width
    told = {place[0] for norm in norms if (place := _axis_of(nested, norm)) is not None}
    return {
        name: exact_units(width, axis.size, where=f"level {level!r}, axis {name!r}")
        for name, axis in nested.nesting.axes.items()
        if axis.kind == "width" and name not in told
    }


def _write_own(
    nested: NestedModel,
    level: str,
    checkpoint: Mapping[str, torch.Tensor],
    norms: list[_Norm],
    index: int,
) -> None:
    own = nested.own_tensors(level)
    for norm in norms:
        for leaf in {*norm.plain, *norm.listed}:
            name, source = f"{norm.name}.{leaf}", norm.source(leaf, index)
            if source is None or name not in own:
                continue
            value = checkpoint[source]
            if leaf not in norm.listed and value.dim():
                value = cut(value, nested.nesting.uses(level, name))
            where = f"level {level!r}: {name}"
            write(own[name], value, name=where, source=source)
