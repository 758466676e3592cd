"""What a placement is: operators, and where each runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNNAMED = "not named"
"""The kind of an operator of which a log gives nothing but that there is one."""


@dataclass(frozen=True)
class Operator:
    """An operator of a model file, or of the graph that a runtime makes of it.

    Attributes:
        kind: as the format calls it: "CONV_2D", "Conv".
        name: of it, or of its first output; empty where it has none.
        macs: multiply-accumulates of one run; None where its shapes do not tell.
    """

    kind: str
    name: str
    macs: int | None


@dataclass(frozen=True)
class Placed:
    """An operator, and where it runs.

    Attributes:
        kind: as the format calls it: "CONV_2D", "Conv".
        name: of it, or of its first output; empty where it has none.
        where: the delegate, provider or processor.
        macs: multiply-accumulates of one run; None where they are not known.
    """

    kind: str
    name: str
    where: str
    macs: int | None


@dataclass(frozen=True)
class Placement:
    """Where the operators of one artifact run.

    Attributes:
        accelerator: that was asked for: a delegate, a provider, "DLA".
        operators: all of them, in the order of the file or of the log.
        partitions: pieces of the network that the accelerator runs without a break; None where
            nobody says. Between two of them the data goes to the processor and back.
        source: who says so: a runtime and its version, or the name of a log.
    """

    accelerator: str
    operators: tuple[Placed, ...]
    partitions: int | None
    source: str

    @property
    def unit(self) -> str:
        """What `share` counts: "MACs", or "operators" where not all MACs are known, or all 0."""
        macs = [operator.macs for operator in self.operators]
        return "operators" if None in macs or not any(macs) else "MACs"

    @property
    def share(self) -> float:
        """How much of the network runs on the accelerator, from 0 to 1; see `unit`."""
        by_macs = self.unit == "MACs"
        weights = [op.macs or 0 if by_macs else 1 for op in self.operators]
        pairs = zip(weights, self.operators, strict=True)
        there = sum(weight for weight, op in pairs if op.where == self.accelerator)
        # A network without any operator gives its inputs: nothing of it runs elsewhere.
        return there / sum(weights) if weights else 1.0

    @property
    def elsewhere(self) -> tuple[Placed, ...]:
        """The operators that do not run on the accelerator, that with the most MACs first."""
        found = [op for op in self.operators if op.where != self.accelerator]
        return tuple(sorted(found, key=lambda op: -(op.macs or 0)))

    def to_json(self) -> dict[str, object]:
        """All of it as one JSON object, shares and counts included."""
        return {
            "accelerator": self.accelerator,
            "share": self.share,
            "unit": self.unit,
            "partitions": self.partitions,
            "source": self.source,
            "operators": [
                {"kind": op.kind, "name": op.name, "where": op.where, "macs": op.macs}
                for op in self.operators
            ],
        }


def counted(operators: Iterable[Placed]) -> str:
    """The kinds of some operators and how many there are of each, in the order they come in.

    >>> counted([Placed("TOPK_V2", "a", "CPU", 0), Placed("CAST", "b", "CPU", 0)] * 2)
    '2 TOPK_V2, 2 CAST'
    """
    counts = Counter(operator.kind for operator in operators)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def unnamed(counts: Mapping[str, int]) -> tuple[Placed, ...]:
    """Operators of which only their number at each place is known."""
    return tuple(
        Placed(UNNAMED, "", where, None) for where, count in counts.items() for _ in range(count)
    )
