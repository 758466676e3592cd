"""The tensors of a level, as differentiable functions of the stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from nestedge.axes.analysis import Analysis
from nestedge.elastic import Elastic, program_at
from nestedge.intervals import Intervals
from nestedge.nesting import Nesting
from nestedge.plan import Plan, cut, masked

Uses = Mapping[str, Sequence[Intervals | None] | None]
Tensors = Mapping[str, torch.Tensor]


def plan_level(analysis: Analysis, elastic: Elastic, nesting: Nesting, level: str | None) -> Plan:
    """How a level runs, and None the full network.

    Args:
        analysis: of the evaluation or of the training program.
        elastic: of the evaluation program.
        nesting: the levels.
        level: which one.
    """
    if level is None:
        return Plan(analysis.program, dict.fromkeys(analysis.program.used_tensors(), ()))
    program = program_at(analysis, elastic, nesting, level)
    return Plan(program, {n: nesting.uses(level, n) or () for n in program.used_tensors()})


@dataclass(frozen=True)
class Weights:
    """The stored tensors of a network, and what its levels make of them.

    Attributes:
        nesting: the levels.
        shared: the tensors that all levels share, by name.
        codes: of element masks, by tensor.
        own: gives the tensors that a level has of its own, by name.
    """

    nesting: Nesting
    shared: Tensors
    codes: Tensors
    own: Callable[[str], Tensors]

    def of(self, level: str | None, uses: Uses) -> dict[str, torch.Tensor]:
        """The tensors of a level; None is the full network.

        Args:
            level: which one.
            uses: for every tensor that is wanted what the level uses of it. The tensors of a
                consensus are its own and, behind the name of the member, those of its members.
        """
        if level is None:
            return {name: self.shared[name] for name in uses}
        own = self.own(level)
        if level not in self.nesting.consensus:
            return {name: self._tensor(level, name, uses[name], own) for name in uses}
        found = {name: own[name] for name in uses if name in own}
        for member in self.nesting.members(level):
            prefix = f"{member}/"
            part = {
                n.removeprefix(prefix): used for n, used in uses.items() if n.startswith(prefix)
            }
            found |= {prefix + name: tensor for name, tensor in self.of(member, part).items()}
        return found

    def _tensor(
        self, level: str, name: str, uses: Sequence[Intervals | None] | None, own: Tensors
    ) -> torch.Tensor:
        tensor = own[name] if name in own else cut(self.shared[name], uses)
        if name not in self.codes:
            return tensor
        used = [level in levels for levels in self.nesting.patterns[name]]
        return masked(tensor, cut(self.codes[name], uses), used)
