"""How a level runs, and which of its tensors are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch

from nestedge.errors import UsageError, did_you_mean
from nestedge.intervals import Intervals
from nestedge.levels import some_names
from nestedge.program.graph import Program, Weight

Mode = Literal["eval", "train"]
BatchNorm = Literal["switchable", "statistics", "shared"]


@dataclass(frozen=True)
class Plan:
    """How a level runs: its program, and what it uses of every tensor that the program reads."""

    program: Program
    uses: Mapping[str, tuple[Intervals | None, ...]]


def cut(tensor: torch.Tensor, uses: Sequence[Intervals | None] | None) -> torch.Tensor:
    """The entries of a tensor that a level uses, differentiably; a view where they are one box."""
    for dim, intervals in enumerate(uses or ()):
        if intervals is None:
            continue
        pieces = [tensor.narrow(dim, start, stop - start) for start, stop in intervals]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    return tensor


def masked(tensor: torch.Tensor, codes: torch.Tensor, used: Sequence[bool]) -> torch.Tensor:
    """A tensor with zeros where the codes are those of weights that a level lacks."""
    return tensor * tensor.new_tensor(used)[codes.long()]


def own_tensors(
    program: Program,
    *,
    batch_norm: BatchNorm,
    patterns: Sequence[str],
    aliases: Mapping[str, str],
) -> list[str]:
    """The tensors that every level has a copy of its own of.

    Args:
        program: of the network.
        batch_norm: which ones of batch norms.
        patterns: of the names of others.
        aliases: other names of tied tensors, to the name in use.

    Raises:
        UsageError: a pattern fits no tensor.
    """
    stored = [name for name, spec in program.tensors.items() if spec.role != "constant"]
    names = {**{name: name for name in stored}, **aliases}
    found = dict.fromkeys(batch_norm_tensors(program, batch_norm))
    for pattern in patterns:
        fitting = [names[n] for n in names if n == pattern or fnmatchcase(n, pattern)]
        if not fitting:
            raise UsageError(
                f"own: no tensor fits {pattern!r}; the network has {some_names(stored)}"
                f"{did_you_mean(pattern, names)}"
            )
        found.update(dict.fromkeys(fitting))
    return list(found)


def batch_norm_tensors(program: Program, policy: BatchNorm) -> list[str]:
    """The tensors of batch norms that every level has a copy of its own of."""
    if policy == "shared":
        return []
    affine = 2 if policy == "switchable" else 0
    found: list[str] = []
    for node in program.nodes:
        if node.op != "aten.batch_norm.default":
            continue
        slots = [*node.args[1 : 1 + affine], *node.args[3:5]]
        names = [slot.name for slot in slots if isinstance(slot, Weight)]
        found += names
        counter = names[-1].rpartition(".")[0] + ".num_batches_tracked" if names else ""
        if counter in program.tensors:
            found.append(counter)
    return found
