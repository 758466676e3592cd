"""Random levels of a nested network: nested widths, depths and element masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from glob import escape

import numpy as np
import numpy.typing as npt

from nestedge.layouts import Axis, Kind
from nestedge.levels import Level
from nestedge.model import NestedModel

Mask = npt.NDArray[np.bool_]
Units = tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """One random level.

    Attributes:
        axes: of the network.
        units: which units it keeps of every axis.
        masks: the weights that it has, by name.
    """

    axes: Mapping[str, Axis]
    units: Mapping[str, Units]
    masks: dict[str, Mask]

    @property
    def level(self) -> Level:
        """As `add_level` takes it."""
        return Level(
            width=self._of("width"),
            head_width=self._of("head_width"),
            kernel={
                escape(name): axis.base + axis.unit * len(self.units[name])
                for name, axis in self.axes.items()
                if axis.kind == "kernel"
            },
            depth=self._of("depth"),
            branches=self._of("branches"),
            masks=self.masks,
        )

    def _of(self, kind: Kind) -> dict[str, Units]:
        return {escape(n): self.units[n] for n, axis in self.axes.items() if axis.kind == kind}


def asked_levels(nested: NestedModel, seed: int) -> dict[str, Asked]:
    """Two or three levels, each inside the one before."""
    rng = np.random.default_rng([seed, 1])
    axes = nested.nesting.axes
    found: dict[str, Asked] = {}
    last = Asked(axes, {name: tuple(range(axis.size)) for name, axis in axes.items()}, masks={})
    masked_from = int(rng.integers(0, 4))
    for i in range(2 if rng.random() < 0.6 else 3):
        fewer = {name: _fewer(rng, last.units[name], axis.kind) for name, axis in axes.items()}
        last = replace(last, units=fewer)
        if i >= masked_from:
            last = replace(last, masks=_fewer_weights(nested, last.masks, rng))
        found[f"level{i}"] = last
    return found


def shared_level(axes: Mapping[str, Axis], scale: int) -> Level:
    """The level that keeps one of `scale` units of every axis, as a narrower twin has them."""
    width = {escape(n): max(1, a.size // scale) for n, a in axes.items() if a.kind == "width"}
    return Level(width=width)


def _fewer(rng: np.random.Generator, units: Units, kind: Kind) -> Units:
    """Some of the units, the first ones or a list; all of them as often as not."""
    if not units or rng.random() < 0.4:
        return units
    if kind == "kernel":
        return units[: int(rng.integers(0, len(units) + 1))]
    # A single unit often says little, and hides mistakes behind it.
    least = 1 if rng.random() < 0.2 else min(2, len(units))
    count = int(rng.integers(least, len(units) + 1))
    if kind != "depth" and rng.random() < 0.2:
        return tuple(sorted(rng.choice(units, count, replace=False).tolist()))
    return units[:count]


def _fewer_weights(
    nested: NestedModel, before: dict[str, Mask], rng: np.random.Generator
) -> dict[str, Mask]:
    """Masks of weights and biases inside those before: entries, rows, columns and rings go."""
    found = dict(before)
    share, rows = rng.random() * 0.3, rng.random() * 0.6
    for name, spec in nested.elastic.program.tensors.items():
        # A direction without any entry has no length: the network itself would give NaN.
        if spec.role != "parameter" or rng.random() < 0.3 or "parametrizations" in name:
            continue
        mask = rng.random(spec.shape) >= share
        for dim, size in enumerate(spec.shape[:2]):
            gone = rng.random(size) < rows * rng.random()
            np.moveaxis(mask, dim, 0)[gone] = False
        if mask.ndim > 2 and rng.random() < rows:
            mask[:, :, [0, -1]] = False
        found[name] = mask & before.get(name, True)
    if found and rng.random() < 0.2:
        # A whole layer, as a branch that adds nothing ends in.
        layer = sorted(found)[int(rng.integers(len(found)))].rpartition(".")[0]
        for name, spec in nested.elastic.program.tensors.items():
            if name.rpartition(".")[0] == layer and spec.role == "parameter":
                found[name] = np.zeros(spec.shape, dtype=bool)
    return found
