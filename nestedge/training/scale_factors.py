"""Factors of channels, groups and residual branches: those at zero take their structure along.

The output of every candidate structure is multiplied by a factor of its own. The product is with
the tensors of the layer that gives the output, behind its batch norm where it has one, so that a
structure whose factor is zero gives exactly zero and can be left out without a trace. Sparse
structure selection (Huang & Wang, ECCV 2018, arXiv:1707.01213).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.training.structures import Candidate, Structure, find_candidates
from nestedge.tree import named


class ScaleFactors(nn.Module):
    """The factors of a network's structures: one of its views while they are trained.

    Its parameters are vectors, one for every axis of channels or groups and one for every stage of
    blocks, each initialised to 1.

    Args:
        nested: the network; it stays as it is.
        structures: as for `add_scale_factors`.

    Raises:
        UsageError: as `add_scale_factors` says.
    """

    def __init__(
        self,
        nested: NestedModel,
        structures: Mapping[Structure, str | Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.candidates: tuple[Candidate, ...] = find_candidates(nested.elastic, structures)
        self.vectors = nn.ParameterList()
        self._entries: list[dict[str, str]] = []
        shared = named(nested.shared)
        for number, candidate in enumerate(self.candidates):
            like = shared[next(iter(candidate.scaled))]
            ones = torch.ones(len(candidate.units), dtype=like.dtype, device=like.device)
            self.vectors.append(nn.Parameter(ones))
            entries = {}
            for index, (tensor, positions) in enumerate(candidate.scaled.items()):
                entries[tensor] = f"entries_{number}_{index}"
                at = torch.tensor(positions, device=like.device)
                self.register_buffer(entries[tensor], at, persistent=False)
            self._entries.append(entries)

    def forward(self, shared: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors that the factors multiply, multiplied.

        Args:
            shared: every tensor of the network by name.
        """
        found: dict[str, torch.Tensor] = {}
        for vector, entries in zip(self.vectors, self._entries, strict=True):
            # Position -1, the last one, is that of entries without a factor here.
            factors = torch.cat((vector, vector.new_ones(1)))
            for tensor, buffer in entries.items():
                value = found.get(tensor, shared[tensor])
                trailing = (1,) * (value.dim() - 1)
                found[tensor] = value * factors[self.get_buffer(buffer)].reshape(-1, *trailing)
        return found

    def factors(self) -> dict[str, torch.Tensor]:
        """The factors of every axis and stage, by name, in the order of their units."""
        return {
            candidate.name: vector.detach()
            for candidate, vector in zip(self.candidates, self.vectors, strict=True)
        }

    def counts(self) -> dict[str, int]:
        """How many factors of every axis and stage are not zero."""
        return {name: int(vector.count_nonzero()) for name, vector in self.factors().items()}

    @torch.no_grad()
    def fold(self, nested: NestedModel) -> None:
        """Multiply the factors into the shared weights and leave the network's views.

        The network computes the same, bit for bit. The factors keep their values, so that levels
        can be made of them afterwards.

        Raises:
            UsageError: they are not among the network's views.
        """
        places = [index for index, view in enumerate(nested.views) if view is self]
        if not places:
            raise UsageError(
                "the scale factors are not among the network's views: they are folded already, or "
                "another network's"
            )
        shared = named(nested.shared)
        for name, value in self(shared).items():
            shared[name].copy_(value)
        del nested.views[places[0]]

    def kept(self, threshold: float = 0.0) -> Level:
        """The level of the structures whose factors are above a threshold.

        At 0 it computes what the network computes. Of an axis that would be empty the largest
        factor's unit stays; `spared` names it. A block that changes the shape, and the last one of
        a stage, stay as well, but masks leave nothing of their branches: materialised, the level
        has their shortcuts alone.

        Raises:
            UsageError: the threshold is below 0, or no number.
        """
        width: dict[str, list[int]] = {}
        depth: dict[str, list[int]] = {}
        masks: dict[str, npt.NDArray[np.bool_]] = {}
        for candidate, vector in zip(self.candidates, self.vectors, strict=True):
            alive = _above(vector, threshold)
            if alive.all():
                continue
            if candidate.structure != "blocks":
                # Where none is above, the largest.
                alive[int(vector.argmax())] |= not alive.any()
                width[candidate.name] = np.flatnonzero(alive).tolist()
                continue
            dead = [unit for unit, lives in zip(candidate.units, alive, strict=True) if not lives]
            gone = [unit for unit in dead if unit in candidate.removable]
            if len(gone) == candidate.size:
                gone.remove(candidate.units[int(vector.argmax())])
            if gone:
                depth[candidate.name] = [u for u in range(candidate.size) if u not in gone]
            for unit in set(dead).difference(gone):
                shapes = candidate.silenced[unit]
                masks |= {name: np.zeros(shape, dtype=bool) for name, shape in shapes.items()}
        return Level(width, depth=depth, masks=masks)

    def spared(self, threshold: float = 0.0) -> tuple[str, ...]:
        """The axes that keep a unit at a threshold although none of their factors is above it.

        Raises:
            UsageError: the threshold is below 0, or no number.
        """
        return tuple(
            candidate.name
            for candidate, vector in zip(self.candidates, self.vectors, strict=True)
            if candidate.structure != "blocks" and not _above(vector, threshold).any()
        )

    def levels(self, thresholds: Mapping[str, float]) -> dict[str, Level]:
        """Levels by their thresholds, from the largest to the smallest; each lies in those before.

        Only at threshold 0 a level computes what the network does: the others are to be trained,
        or have their batch-norm statistics measured anew.

        Raises:
            UsageError: a threshold is below 0, or no number.
        """
        ordered = sorted(thresholds.items(), key=lambda item: item[1])
        return {name: self.kept(threshold) for name, threshold in ordered}


def add_scale_factors(
    nested: NestedModel, structures: Mapping[Structure, str | Sequence[str]] | None = None
) -> ScaleFactors:
    """Give structures of a network factors, which become one of its views.

    Fold them before the network is saved or materialised. To resume training add them to the
    network anew, before its state is loaded.

    Args:
        nested: the network.
        structures: what has factors: for "neurons" and "groups" patterns of axes, for "blocks" of
            the paths of residual blocks; a kind that is not named has none. If None, all that can
            be switched off exactly. An axis that several batch norms have to switch off, as the
            channels of a residual trunk, has factors only where it is named in full.

    Raises:
        UsageError: nothing can have a factor, a pattern fits nothing, or a level has its own copy
            of a tensor that the factors multiply.
    """
    factors = ScaleFactors(nested, structures)
    scaled = {name for candidate in factors.candidates for name in candidate.scaled}
    owning = [level for level, own in nested.nesting.own.items() if not scaled.isdisjoint(own)]
    if owning:
        raise UsageError(
            f"levels {owning} have batch norms of their own, which the factors would not reach; "
            "remove these levels, and add them when the factors are folded"
        )
    nested.views.append(factors)
    return factors


def _above(vector: torch.Tensor, threshold: float) -> npt.NDArray[np.bool_]:
    if not 0 <= threshold < math.inf:
        raise UsageError(f"threshold: expected 0 or more and finite, found {threshold}")
    above: npt.NDArray[np.bool_] = (vector.detach() > threshold).cpu().numpy()
    return above
