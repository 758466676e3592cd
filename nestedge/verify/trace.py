"""Every value that a network computes on the way, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from nestedge.plugins import Array


@dataclass(frozen=True, kw_only=True)
class TracedOperator:
    """One operator of a network.

    Attributes:
        kind: as the framework calls it: "Conv", "CONV_2D", "aten.conv2d.default".
        name: of this one among those of the network.
        inputs: names of the values that it reads; constants are not among them.
        outputs: names of the values that it gives.
        constants: names of the constants that it reads.
        module: path of the module that it belongs to, where the framework knows it.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[str, ...] = ()
    module: str = ""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run of a network.

    Attributes:
        operators: in the order in which they ran; what only computes constants is left out.
        values: by name, as numbers: what is stored in steps of a scale is multiplied by it. Those
            that are not known, or are no numbers, are missing.
        inputs: name of the value, by input of the network.
        outputs: name of the value, by output of the network.
    """

    operators: tuple[TracedOperator, ...]
    values: Mapping[str, Array]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def makers(self) -> dict[str, TracedOperator]:
        """The operator that gives a value, by the name of the value."""
        return {name: operator for operator in self.operators for name in operator.outputs}


@runtime_checkable
class TracingRuntime(Protocol):
    """A runtime plug-in that can also tell the values in between."""

    def trace(self, path: Path, inputs: Mapping[str, Array], *, threads: int = 1) -> Trace:
        """One run of the network in a file, with the runtime's optimisations off.

        Raises:
            MissingDependencyError: it needs a package for this that is not installed.
            FormatError: the framework does not accept the file.
            ValueError: an input is missing, unknown, or of another shape or dtype.
        """
        ...
