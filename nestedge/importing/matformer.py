"""MatFormer: levels are prefixes of the hidden units of a transformer's MLPs.

Devvrit et al., 2023, arXiv:2310.07707. Any mix of widths over the layers is a level (Mix'n'Match).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nestedge.card import Card
from nestedge.errors import UsageError
from nestedge.importing.checkpoint import exact_units
from nestedge.importing.hidden import hidden_axes
from nestedge.levels import Level, Share
from nestedge.model import NestedModel
from nestedge.nested import nest


def from_matformer(
    model: nn.Module,
    example_inputs: Any,
    levels: Mapping[str, Share | Sequence[Share]],
    *,
    card: Card | None = None,
    calibration: Any = None,
) -> NestedModel:
    """Nest a transformer whose levels use the first hidden units of its MLPs, and all of the rest.

    The MLPs are found by rule: hidden units between linear layers of one residual branch, with
    only element-wise operators between them (gates included).

    Args:
        model: the whole transformer with its trained weights; units count as they are stored.
        example_inputs: as `nest` takes them.
        levels: for each level a share (float) or number (int) of hidden units, or a list with
            one for every MLP, in the order in which they run.
        card: as `nest` takes it.
        calibration: as `nest` takes it.

    Raises:
        UsageError: there is no MLP or one is ambiguous, a list has another length, or a share is
            no whole number of units.
    """
    nested = nest(model, example_inputs, {}, card=card, calibration=calibration)
    axes = hidden_axes(nested)
    for name, asked in levels.items():
        shares = list(asked) if isinstance(asked, Sequence) else [asked] * len(axes)
        if len(shares) != len(axes):
            raise UsageError(
                f"level {name!r}: expected {len(axes)} widths for the MLPs {list(axes)}, "
                f"found {len(shares)}"
            )
        width = {
            axis: exact_units(
                share, nested.nesting.axes[axis].size, where=f"level {name!r}, axis {axis!r}"
            )
            for axis, share in zip(axes, shares, strict=True)
        }
        nested.add_level(name, Level(width=width))
    return nested
