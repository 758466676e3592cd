"""Which value of a reference a value of an artifact should be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from nestedge.plugins import Array
from nestedge.verify.closeness import relative_error
from nestedge.verify.steps import PLUMBING
from nestedge.verify.trace import Trace, TracedOperator

_ADDED = re.compile(
    r"_(QuantizeLinear_Input|QuantizeLinear_Output|DequantizeLinear_Output"
    r"|cast_to_fp16|cast_to_fp32|quantized|dequant)$"
)
"""What onnxruntime's tools and ai-edge-quantizer append to the name of a value."""

_ACTIVATIONS = frozenset({"Relu", "Clip"})
"""What the range of 8-bit numbers does as well, so that quantisers leave it out."""

_SAME = 10.0
"""Two values are one if they differ by less than this many tolerances."""


@dataclass(frozen=True)
class Alignment:
    """The counterparts of values.

    Attributes:
        expected: what a value should be, by its name, in its shape.
        modules: path of the module in the user's network, by value, where the reference knows it.
    """

    expected: dict[str, Array] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)


def align_by_name(trace: Trace, reference: Trace) -> Alignment:
    """The counterparts in a trace of the same model file in another precision, by runtime's names.

    Quantisers and casts rename values; the new names begin with the old ones.
    """
    found = Alignment()
    ends = [
        (mine[name], theirs[name])
        for mine, theirs in (
            (trace.inputs, reference.inputs),
            (trace.outputs, reference.outputs),
        )
        for name in mine
        if name in theirs
    ]
    pairs = {name: _counterpart(name, trace, reference) for name in trace.values}
    for name, other in (pairs | dict(ends)).items():
        mine, theirs = trace.values.get(name), reference.values.get(other)
        if mine is not None and theirs is not None and mine.shape == theirs.shape:
            found.expected[name] = theirs
    return found


def _counterpart(name: str, trace: Trace, reference: Trace) -> str:
    base = name
    while base not in reference.values and _ADDED.search(base):
        base = _ADDED.sub("", base)
    maker = trace.makers.get(name)
    other = reference.makers.get(base)
    # A layer whose activation was left out gives what the layer gave before it.
    while (
        maker is not None
        and other is not None
        and maker.kind not in PLUMBING | {other.kind}
        and other.kind in _ACTIVATIONS
    ):
        base = other.inputs[0]
        other = reference.makers.get(base)
    return base


def align_by_value(
    trace: Trace, reference: Trace, *, modules: Mapping[str, str], tolerance: float
) -> Alignment:
    """The counterparts in a trace of the network itself, whose values have other names.

    A value that some value of the network equals, in whatever layout, is that one. Of those that
    none equals, and on which no such value depends, the last of each layer is compared with what
    the layer gives.

    Args:
        trace: of the artifact.
        reference: of the network.
        modules: path of the module whose weight an operator has, by the name of the operator.
        tolerance: of the artifact.
    """
    matcher = _Matcher(reference, limit=_SAME * tolerance)
    for mine, theirs in ((trace.inputs, reference.inputs), (trace.outputs, reference.outputs)):
        for name, value in mine.items():
            if name in theirs and value in trace.values:
                matcher.pair(value, trace.values[value], [theirs[name]])
    for operator in trace.operators:
        for value in _known(operator, trace):
            matcher.find(value, trace.values[value])
    last = {modules[op.name]: op for op in trace.operators if op.name in modules}
    vouched = _ancestors(trace, matcher.equal)
    for module, operator in last.items():
        for value in _known(operator, trace):
            if value not in vouched and value not in matcher.found.expected:
                matcher.pair(value, trace.values[value], matcher.of_layer(module))
    return matcher.found


class _Matcher:
    """Pairs values with those of a reference.

    Attributes:
        found: the pairs.
        equal: the values that equal their counterparts.
    """

    def __init__(self, reference: Trace, *, limit: float) -> None:
        self.found = Alignment()
        self.equal: set[str] = set()
        self._reference = reference
        self._limit = limit
        self._by_size: dict[int, list[tuple[str, tuple[float, float]]]] = {}
        for operator in reference.operators:
            for name in _known(operator, reference):
                array = reference.values[name]
                self._by_size.setdefault(array.size, []).append((name, _statistics(array)))

    def find(self, value: str, array: Array) -> None:
        """Pairs a value with the one that it equals, if there is one."""
        if array.size > 1:
            mean, spread = _statistics(array)
            near = self._limit * (abs(mean) + spread) + 1e-12
            names = [
                name
                for name, (other, other_spread) in self._by_size.get(array.size, ())
                if abs(mean - other) <= near and abs(spread - other_spread) <= near
            ]
            self.pair(value, array, names, most=self._limit)

    def pair(
        self, value: str, array: Array, names: Iterable[str], *, most: float = float("inf")
    ) -> None:
        """Pairs a value with the nearest of some of the reference, if it is near enough."""
        best: tuple[float, str, Array] | None = None
        for name in names:
            for arranged in _arrangements(self._reference.values[name], array):
                error = relative_error(array, arranged)
                if best is None or error < best[0]:
                    best = error, name, arranged
        if best is None or best[0] > most:
            return
        self.found.expected[value] = best[2]
        if best[0] <= self._limit:
            self.equal.add(value)
        maker = self._reference.makers.get(best[1])
        if maker is not None and maker.module:
            self.found.modules[value] = maker.module

    def of_layer(self, module: str) -> Iterator[str]:
        """What a layer gives, before and after the activation that may be part of it."""
        for operator in self._reference.operators:
            if any(parent_of(name) == module for name in operator.constants):
                names = list(_known(operator, self._reference))
                yield from names
                yield from (
                    name
                    for other in self._reference.operators
                    if set(other.inputs) <= set(names) and other.inputs and not other.constants
                    for name in _known(other, self._reference)
                )


def parent_of(name: str) -> str:
    """Path of the module that a tensor belongs to.

    >>> parent_of("layer1.0.conv1.weight")
    'layer1.0.conv1'
    """
    return name.rpartition(".")[0]


def _known(operator: TracedOperator, trace: Trace) -> Iterator[str]:
    return (name for name in operator.outputs if name in trace.values)


def _ancestors(trace: Trace, values: Iterable[str]) -> set[str]:
    """The values that some others depend on."""
    wanted = set(values)
    for operator in reversed(trace.operators):
        if not wanted.isdisjoint(operator.outputs):
            wanted.update(operator.inputs)
    return wanted


def _statistics(array: Array) -> tuple[float, float]:
    """Mean and spread, which no layout changes."""
    numbers = array.astype(np.float64)
    return float(numbers.mean()), float(numbers.std())


def _arrangements(array: Array, like: Array) -> Iterator[Array]:
    """An array in the shape of another, in every layout that it may have there."""
    if array.size != like.size:
        return
    yield array.reshape(like.shape)
    # Channels last, where they were behind the batch.
    if array.ndim > 2:
        yield np.moveaxis(array, 1, -1).reshape(like.shape)
        yield np.moveaxis(array, -1, 1).reshape(like.shape)
