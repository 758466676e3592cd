"""Which cells are meant, and which of them runs where nobody says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nestedge.artifact import Artifact
from nestedge.errors import UsageError, did_you_mean


class Named(Protocol):
    """Whatever stands for a cell: what was planned, what was shipped, or the artifact itself."""

    @property
    def level(self) -> str:
        """Of the nested network."""
        ...

    @property
    def runtime(self) -> str:
        """The runtime that the artifact is for."""
        ...

    @property
    def precision(self) -> str:
        """As in "fp32"."""
        ...


NamedCell = TypeVar("NamedCell", bound=Named)


@dataclass(frozen=True)
class CellFilter:
    """Some of the cells: those that have one of each; an empty one stands for all.

    Attributes:
        levels: names of levels.
        runtimes: names of runtimes.
        precisions: names of precisions.
    """

    levels: Sequence[str] = ()
    runtimes: Sequence[str] = ()
    precisions: Sequence[str] = ()

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not (self.levels or self.runtimes or self.precisions)

    def select(self, cells: Sequence[NamedCell], *, where: str) -> list[NamedCell]:
        """Those that are meant, in their order.

        Args:
            cells: to select from.
            where: what has them, for errors.

        Raises:
            UsageError: none of the cells has a level, a runtime or a precision that is asked for,
                or none has all at once.
        """
        _check("level", self.levels, {cell.level for cell in cells}, where=where)
        _check("runtime", self.runtimes, {cell.runtime for cell in cells}, where=where)
        _check("precision", self.precisions, {cell.precision for cell in cells}, where=where)
        found = [cell for cell in cells if self._has(cell)]
        if not found:
            raise UsageError(f"{where}: {self} is no cell; there are {_names(cells)}")
        return found

    def _has(self, cell: Named) -> bool:
        pairs = (
            (self.levels, cell.level),
            (self.runtimes, cell.runtime),
            (self.precisions, cell.precision),
        )
        return all(not wanted or found in wanted for wanted, found in pairs)

    def __str__(self) -> str:
        parts = (self.levels, self.runtimes, self.precisions)
        return " with ".join(" or ".join(names) for names in parts if names)


def default_cell(artifacts: Sequence[Artifact]) -> str:
    """The cell that runs where nobody says: of the level with most parameters, the first.

    One whose engine the device has to compile first is taken only where there is no other.

    Raises:
        ValueError: there are no artifacts.
    """
    if not artifacts:
        raise ValueError("expected at least one artifact")
    ready = [artifact for artifact in artifacts if not artifact.is_engine_unbuilt]
    return max(ready or artifacts, key=lambda artifact: artifact.parameters).cell


def _check(noun: str, wanted: Iterable[str], known: set[str], *, where: str) -> None:
    for name in wanted:
        if name not in known:
            suggestion = did_you_mean(name, sorted(known))
            raise UsageError(f"{where}: no {noun} {name!r}; there are {sorted(known)}{suggestion}")


def _names(cells: Sequence[Named]) -> list[str]:
    return [f"{cell.level}/{cell.runtime}-{cell.precision}" for cell in cells]
