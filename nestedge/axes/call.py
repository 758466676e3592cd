"""One operator call as the rules see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nestedge.axes.tags import Tags, Ties


@dataclass(frozen=True)
class Call:
    """An operator call on tags.

    Attributes:
        op: the operator.
        a: its arguments by their name in the schema: Tags for tensors, else plain values.
        out: the shapes of its outputs in the full network.
        ties: where ties are made.
    """

    op: str
    a: Mapping[str, Any]
    out: Sequence[tuple[int, ...]]
    ties: Ties

    @property
    def operands(self) -> list[Tags]:
        """The arguments that are tensors, in order."""
        return [value for value in self.a.values() if isinstance(value, Tags)]
