"""Structures that a factor can switch off exactly: channels, groups and residual branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, get_args

from nestedge.elastic import Elastic
from nestedge.errors import UsageError, did_you_mean
from nestedge.training.channel_gates import channel_gates, positions
from nestedge.training.residual_branches import residual_branches

Structure = Literal["neurons", "groups", "blocks"]

_Wanted = Mapping[Structure, Sequence[str]] | None


@dataclass(frozen=True)
class Candidate:
    """Structures that may go one by one, each of which is to have a factor.

    Attributes:
        name: of their axis, or of the stage of their blocks.
        structure: what they are.
        units: their numbers on the axis or in the stage.
        scaled: the tensors that the factors multiply, and for each entry of a tensor's first
            dimension the position of its factor, or -1.
        size: of the axis or the stage.
        removable: of blocks the numbers of those that can go as a whole; of others nothing.
        silenced: of blocks by their numbers the tensors, and their shapes, that masks are to leave
            nothing of where only the branch can go.
    """

    name: str
    structure: Structure
    units: tuple[int, ...]
    scaled: Mapping[str, tuple[int, ...]]
    size: int
    removable: frozenset[int] = frozenset()
    silenced: Mapping[int, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)


def find_candidates(
    elastic: Elastic, structures: Mapping[Structure, str | Sequence[str]] | None = None
) -> tuple[Candidate, ...]:
    """The structures of a network that a factor can switch off.

    Args:
        elastic: the network.
        structures: for each kind one or more patterns, of axes or of the paths of blocks; if None,
            all there are. An axis that several batch norms have to switch off, as the channels of
            a residual trunk, is taken only where it is named in full.

    Raises:
        UsageError: there is none, or a pattern fits none.
    """
    for structure in structures or ():
        if structure not in get_args(Structure):
            raise UsageError(
                f"structures: expected some of {list(get_args(Structure))}, found {structure!r}"
                f"{did_you_mean(structure, get_args(Structure))}"
            )
    wanted = structures and {
        structure: (asked,) if isinstance(asked, str) else tuple(asked)
        for structure, asked in structures.items()
    }
    found = [*_axes(elastic, wanted), *_stages(elastic, wanted)]
    if not found:
        raise UsageError(
            "structures: found none that a factor can switch off: no channels or groups behind a "
            "batch norm, and no residual block whose branch ends with a layer of its own"
        )
    return tuple(found)


def _stages(elastic: Elastic, wanted: _Wanted) -> Iterator[Candidate]:
    branches = residual_branches(elastic)
    paths = [path for of_stage in branches.values() for path in of_stage]
    chosen = _fitting("blocks", paths, wanted)
    shapes = {name: spec.shape for name, spec in elastic.program.tensors.items()}
    for stage in elastic.stages:
        found = {
            unit: branches[stage.name][path]
            for unit, path in enumerate(stage.blocks)
            if path in branches[stage.name] and path in chosen
        }
        if found:
            yield Candidate(
                stage.name,
                "blocks",
                units=tuple(found),
                scaled={
                    name: (position,) * shapes[name][0]
                    for position, branch in enumerate(found.values())
                    for name in branch.scaled
                },
                size=len(stage.blocks),
                removable=frozenset(unit for unit in found if found[unit].is_removable),
                silenced={
                    unit: {name: shapes[name] for name in branch.silenced}
                    for unit, branch in found.items()
                },
            )


def _axes(elastic: Elastic, wanted: _Wanted) -> Iterator[Candidate]:
    axes = elastic.layout.axes
    gates = channel_gates(elastic, {name for names in (wanted or {}).values() for name in names})
    for structure in ("neurons", "groups"):
        known = [axis for axis in gates if (axes[axis].unit > 1) == (structure == "groups")]
        for axis in _fitting(structure, known, wanted):
            names = dict.fromkeys(leaf.name for n in gates[axis] for leaf in n.args[1:3] if leaf)
            yield Candidate(
                axis,
                structure,
                units=tuple(range(axes[axis].size)),
                scaled={name: positions(elastic, name, axis) for name in names},
                size=axes[axis].size,
            )


def _fitting(structure: Structure, known: Sequence[str], wanted: _Wanted) -> list[str]:
    """Those of the known names that are asked for."""
    if wanted is None:
        return list(known)
    found: set[str] = set()
    for pattern in wanted.get(structure, ()):
        # Brackets are part of some axes' names, and sets of characters in a pattern.
        fitting = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            raise UsageError(
                f"{structure}: none that a factor can switch off fits {pattern!r}; the network has "
                f"{_some(known)}{did_you_mean(pattern, known)}"
            )
        found.update(fitting)
    return [name for name in known if name in found]


def _some(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more if names else "none"
