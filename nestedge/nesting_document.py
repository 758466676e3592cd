"""A nesting as JSON data, and back: its axes, layouts, levels, masks and consensus networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError, did_you_mean
from nestedge.intervals import Intervals
from nestedge.joining import OF, Consensus, Layer
from nestedge.layouts import KINDS, Axis, Kind, Run, TensorLayout
from nestedge.nesting import Choice, Nesting

FINE = 3
"""The first version of the format whose axes may be kernels, head widths and branches."""

SERVING = 4
"""The first version with axes of outputs, and with consensus networks."""

_LEVEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def kinds_in(version: int) -> tuple[Kind, ...]:
    """The kinds of axes that a version of the format has."""
    if version >= SERVING:
        return (*KINDS, "outputs")
    return KINDS if version >= FINE else ("width", "depth")


def elastic_tensors(nesting: Nesting) -> dict[str, TensorLayout]:
    """The layouts of the tensors that not every level has whole."""
    return {
        name: layout
        for name, layout in nesting.tensors.items()
        if any(layout.covers()) or layout.requires or layout.serves
    }


def nesting_to_json(nesting: Nesting) -> dict[str, Any]:
    """A nesting as JSON data: the fields of a manifest that are about it."""
    layouts = elastic_tensors(nesting)
    return {
        "axes": {name: _axis_to_json(nesting, name) for name in nesting.axes},
        "layouts": {name: _layout_to_json(layout) for name, layout in layouts.items()},
        "levels": [_level_to_json(nesting, name) for name in nesting.levels],
        "masks": {
            tensor: [[name for name in nesting.levels if name in levels] for levels in patterns]
            for tensor, patterns in nesting.patterns.items()
        },
        "consensus": [_consensus_to_json(name, c) for name, c in nesting.consensus.items()],
    }


def _axis_to_json(nesting: Nesting, name: str) -> dict[str, Any]:
    axis, bounds = nesting.axes[name], nesting.segments[name]
    fields = {"size": axis.size, "unit": axis.unit, "kind": axis.kind, "base": axis.base}
    return {**fields, "bounds": list(bounds)}


def _layout_to_json(layout: TensorLayout) -> dict[str, Any]:
    dims, inner = (
        [[[run.axis, run.start, run.stop, run.repeat] for run in runs] for runs in covers]
        for covers in (layout.dims, layout.inner)
    )
    requires = [[axis, unit] for axis, unit in layout.requires]
    serves = [[axis, unit] for axis, unit in layout.serves]
    return {"dims": dims, "inner": inner, "requires": requires, "serves": serves}


def _level_to_json(nesting: Nesting, name: str) -> dict[str, Any]:
    kept = {
        axis: [list(interval) for interval in intervals]
        for axis, intervals in nesting.levels[name].kept.items()
    }
    return {"name": name, "kept": kept, "own": sorted(nesting.own[name])}


def _consensus_to_json(name: str, consensus: Consensus) -> dict[str, Any]:
    layer = consensus.layer
    return {
        "name": name,
        "members": list(consensus.members),
        "output": consensus.output,
        "of": consensus.of,
        "layer": layer and {"classes": layer.classes, "dtype": layer.dtype},
    }


def nesting_from_json(fields: Mapping[str, Value], *, version: int) -> Nesting:
    """The nesting in JSON data, without the tensors that every level has whole.

    Args:
        fields: of the manifest, by name.
        version: of its format.

    Raises:
        FormatError: a field is missing, unknown or wrong; the message names it.
    """
    axes, layouts, levels, masks = (fields[n] for n in ("axes", "layouts", "levels", "masks"))
    found = {name: _read_axis(item, version=version) for name, item in axes.members().items()}
    tensors = {
        name: _read_layout(item, found, version=version) for name, item in layouts.members().items()
    }
    nesting = Nesting(found, tensors)
    for item in levels.elements():
        nesting = _with_level(nesting, item)
    for name, item in axes.members().items():
        _check_bounds(item.members()["bounds"], nesting.segments[name])
    patterns = {
        name: _read_patterns(item, tuple(nesting.levels)) for name, item in masks.members().items()
    }
    nesting = replace(nesting, patterns=patterns)
    for item in fields["consensus"].elements() if "consensus" in fields else ():
        nesting = _with_consensus(nesting, item)
    return nesting


def _read_axis(value: Value, *, version: int) -> Axis:
    size, unit, kind, _, *base = value.fields(
        "size", "unit", "kind", "bounds", *(["base"] if version >= FINE else [])
    )
    return Axis(
        size.integer(minimum=1),
        unit.integer(minimum=1),
        kind.choice(*kinds_in(version)),
        *(item.integer(minimum=0) for item in base),
    )


def _check_bounds(value: Value, segments: tuple[int, ...]) -> None:
    if value.data != list(segments):
        raise value.error(f"{list(segments)} by what the levels keep")


def _read_layout(value: Value, axes: Mapping[str, Axis], *, version: int) -> TensorLayout:
    since = {"inner": FINE, "serves": SERVING}
    names = ("dims", "requires", *(name for name, first in since.items() if version >= first))
    fields = dict(zip(names, value.fields(*names), strict=True))
    return TensorLayout(
        _read_covers(fields["dims"], axes),
        _read_units(fields["requires"], axes),
        _read_covers(fields["inner"], axes) if "inner" in fields else (),
        _read_units(fields["serves"], axes) if "serves" in fields else (),
    )


def _read_covers(value: Value, axes: Mapping[str, Axis]) -> tuple[tuple[Run, ...], ...]:
    return tuple(
        tuple(_read_run(run, axes) for run in runs.elements()) for runs in value.elements()
    )


def _read_run(value: Value, axes: Mapping[str, Axis]) -> Run:
    name, start, stop, repeat = _items(value, 4)
    run = Run(
        _read_axis_name(name, axes) if name.optional() else None,
        start.integer(minimum=0),
        stop.integer(minimum=start.integer(minimum=0)),
        repeat.integer(minimum=1),
    )
    if run.axis is not None and run.stop > axes[run.axis].size:
        raise stop.error(f"at most {axes[run.axis].size}, the size of the axis")
    return run


def _read_units(value: Value, axes: Mapping[str, Axis]) -> tuple[tuple[str, int], ...]:
    return tuple(_read_unit(item, axes) for item in value.elements())


def _read_unit(value: Value, axes: Mapping[str, Axis]) -> tuple[str, int]:
    name, unit = _items(value, 2)
    axis = axes[_read_axis_name(name, axes)]
    if unit.integer(minimum=0) >= axis.size:
        raise unit.error(f"less than {axis.size}, the size of the axis")
    return name.string(), unit.integer(minimum=0)


def _read_axis_name(value: Value, axes: Mapping[str, Axis]) -> str:
    if value.string() not in axes:
        raise value.error("the name of an axis")
    return value.string()


def _items(value: Value, count: int) -> tuple[Value, ...]:
    if len(value.elements()) != count:
        raise value.error(f"{count} values")
    return value.elements()


def _with_level(nesting: Nesting, value: Value) -> Nesting:
    name, kept, own = value.fields("name", "kept", "own")
    _check_name(name)
    choice = Choice({axis: _read_intervals(item) for axis, item in kept.members().items()})
    tensors = [item.string() for item in own.elements()]
    try:
        return nesting.with_level(name.string(), choice, own=tensors)
    except UsageError as error:
        raise FormatError(f"{value.where}: {error}") from error


def _with_consensus(nesting: Nesting, value: Value) -> Nesting:
    name, members, output, of, layer = value.fields("name", "members", "output", "of", "layer")
    _check_name(name)
    consensus = Consensus(
        tuple(item.string() for item in members.elements()),
        output.string(),
        of.choice(*OF),
        _read_layer(layer) if layer.optional() else None,
    )
    try:
        return nesting.with_consensus(name.string(), consensus)
    except UsageError as error:
        raise FormatError(f"{value.where}: {error}") from error


def _read_layer(value: Value) -> Layer:
    classes, dtype = value.fields("classes", "dtype")
    return Layer(classes.integer(minimum=1), dtype.string())


def _check_name(name: Value) -> None:
    if not _LEVEL.fullmatch(name.string()):
        raise name.error("letters, digits, '_' and '-' only, and no '-' first")


def _read_intervals(value: Value) -> Intervals:
    pairs = [_items(item, 2) for item in value.elements()]
    return tuple((start.integer(minimum=0), stop.integer(minimum=0)) for start, stop in pairs)


def _read_patterns(value: Value, levels: tuple[str, ...]) -> tuple[frozenset[str], ...]:
    patterns = tuple(_read_pattern(item, levels) for item in value.elements())
    if not patterns or patterns[0] or len(patterns) > 256:
        raise value.error("up to 256 patterns, of which the first, that of no level, is empty")
    return patterns


def _read_pattern(value: Value, levels: tuple[str, ...]) -> frozenset[str]:
    for item in value.elements():
        if item.string() not in levels:
            raise FormatError(
                f"{item.where}: no level {item.string()!r}; the file has {list(levels)}"
                f"{did_you_mean(item.string(), levels)}"
            )
    return frozenset(item.string() for item in value.elements())
