"""At which operator the error of a network arises."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nestedge.documents import Value
from nestedge.plugins import Array
from nestedge.verify.closeness import relative_error
from nestedge.verify.trace import Trace, TracedOperator

JUMP = 3.0
"""An operator that multiplies the error by less is one of many: rounding adds up so, too."""

_NOISE = 0.1
"""Errors below this share of the tolerance count as equally small: they are rounding."""

PLUMBING = frozenset(
    {
        *("Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("CAST", "QUANTIZE", "DEQUANTIZE"),
    }
)
"""Operators that only change what numbers are stored as."""


@dataclass(frozen=True, kw_only=True)
class WorstOperator:
    """The operator at which the error jumps.

    Attributes:
        kind: as the framework calls it: "Conv", "CONV_2D".
        name: of this one among those of the model file.
        module: path of its module in the user's network, "behind ..." where only that of the layer
            before it is known, or "".
        value: name of the value at which the error shows.
        input_error: relative error of the worst value that goes in.
        output_error: relative error of the value that comes out; inf where it is not a number.
        between: kinds of the operators since the last values that could be compared, this one
            among them, where there are several: it may be any of these.
    """

    kind: str
    name: str
    module: str
    value: str
    input_error: float
    output_error: float
    between: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return {
            "kind": self.kind,
            "name": self.name,
            "module": self.module,
            "value": self.value,
            "input_error": _finite(self.input_error),
            "output_error": _finite(self.output_error),
            "between": list(self.between),
        }

    @classmethod
    def from_json(cls, value: Value) -> WorstOperator:
        """The operator in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(cls.__dataclass_fields__)
        field = dict(zip(names, value.fields(*names), strict=True))
        return cls(
            kind=field["kind"].string(),
            name=field["name"].string(),
            module=field["module"].string(),
            value=field["value"].string(),
            input_error=_number(field["input_error"]),
            output_error=_number(field["output_error"]),
            between=tuple(item.string() for item in field["between"].elements()),
        )


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Where the error of an artifact arises.

    Attributes:
        reference: what its values were compared with: a cell, "the network, run by torch", or "".
        compared: how many of its values have a counterpart there.
        values: how many values it has.
        operator: the worst; None where that cannot be said.
        note: why it cannot, or what to know about it, or "".
    """

    reference: str
    compared: int
    values: int
    operator: WorstOperator | None
    note: str

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return {
            "reference": self.reference,
            "compared": self.compared,
            "values": self.values,
            "operator": self.operator and self.operator.to_json(),
            "note": self.note,
        }

    @classmethod
    def from_json(cls, value: Value) -> Localisation:
        """The place in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(cls.__dataclass_fields__)
        reference, compared, values, operator, note = value.fields(*names)
        return cls(
            reference=reference.string(),
            compared=compared.integer(minimum=0),
            values=values.integer(minimum=0),
            operator=None if operator.optional() is None else WorstOperator.from_json(operator),
            note=note.string(),
        )


@dataclass(frozen=True)
class Step:
    """What the operators since the last compared values did to the error.

    Attributes:
        region: the operators, in their order; the last one gives the value.
        value: name of the value.
        input_error: the largest that goes in.
        output_error: of the value.
        growth: the second in terms of the first, differences below the noise not counted.
    """

    region: tuple[TracedOperator, ...]
    value: str
    input_error: float
    output_error: float
    growth: float

    def operator(self, layers: Container[str]) -> TracedOperator:
        """The one to name: the last that has weights, else the last that computes something.

        Args:
            layers: names of the operators that have weights.
        """
        computing = [found for found in self.region if found.kind not in PLUMBING]
        weighted = [found for found in computing if found.name in layers]
        return (weighted or computing or list(self.region))[-1]


def worst_step(
    trace: Trace, expected: Mapping[str, Array], *, output: str, tolerance: float
) -> Step | None:
    """The step on the way to an output that multiplies the error most, the first of such.

    Args:
        trace: of the artifact.
        expected: what values of the trace should be, by name, in their shapes.
        output: name of the value of an output.
        tolerance: of the artifact.

    Returns:
        None where nothing can be compared on the way.
    """
    ancestors = _ancestors(trace, output)
    steps = [step for step in _steps(trace, expected, tolerance) if step.region[-1] in ancestors]
    return max(steps, key=lambda step: step.growth, default=None)


def _steps(trace: Trace, expected: Mapping[str, Array], tolerance: float) -> Iterator[Step]:
    errors: dict[str, float] = {}
    regions: dict[str, tuple[TracedOperator, ...]] = {}
    for name in trace.inputs.values():
        if name in expected and name in trace.values:
            errors[name] = relative_error(trace.values[name], expected[name])
    for operator in trace.operators:
        going_in = max((errors.get(name, 0.0) for name in operator.inputs), default=0.0)
        region = (*_joined([regions.get(name, ()) for name in operator.inputs]), operator)
        for name in operator.outputs:
            if name not in expected or name not in trace.values:
                errors[name], regions[name] = going_in, region
                continue
            errors[name] = relative_error(trace.values[name], expected[name])
            growth = _growth(going_in, errors[name], noise=_NOISE * tolerance)
            yield Step(region, name, going_in, errors[name], growth)


def _growth(going_in: float, coming_out: float, *, noise: float) -> float:
    if math.isinf(going_in):
        return 0.0
    # A tolerance of zero wants every bit.
    return coming_out / max(going_in, noise, 1e-12)


def _joined(regions: Sequence[tuple[TracedOperator, ...]]) -> tuple[TracedOperator, ...]:
    """The operators of several regions, each once."""
    return tuple({id(found): found for region in regions for found in region}.values())


def _ancestors(trace: Trace, output: str) -> list[TracedOperator]:
    """The operators that an output depends on."""
    wanted, found = {output}, []
    for operator in reversed(trace.operators):
        if not wanted.isdisjoint(operator.outputs):
            wanted.update(operator.inputs)
            found.append(operator)
    return found


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _number(value: Value) -> float:
    found = value.optional()
    return math.inf if found is None else found.number()
