"""manifest.json of a .nest: the levels, and what travels with the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError, did_you_mean
from nestedge.intervals import Intervals
from nestedge.layouts import KINDS, Axis, Run, TensorLayout
from nestedge.nesting import Choice, Nesting
from nestedge.preprocessing import Preprocessing

FORMAT = 3
"""The version of the format that this nestedge writes; it reads every version up to it."""

FINE = 3
"""The first version whose axes may be kernels and head widths."""

_FIELDS_1 = (
    *("format", "nestedge", "axes", "layouts", "levels", "masks", "labels"),
    *("preprocessing", "divisor", "batch_norm", "aliases", "examples"),
)
_FIELDS_2 = (*_FIELDS_1, "calibration_cases")
_FIELDS = {1: _FIELDS_1, 2: _FIELDS_2, 3: _FIELDS_2}
"""The fields of every version of the format. Calibration data came with 2.

With 3 came the `base` of an axis and the `inner` runs of a layout.
"""

_LEVEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says.

    Attributes:
        format: version of the format of the file.
        nestedge: version of the nestedge that wrote the file.
        nesting: axes, layouts and levels; tensors that every level has whole are left out.
        labels: class names in the order of the logits.
        preprocessing: how an image becomes the input.
        divisor: what widths are rounded to a multiple of.
        batch_norm: which batch-norm tensors a new level gets of its own: "switchable", "shared" or
            "statistics".
        aliases: other names of tied tensors, to the name in use.
        examples: the inputs of which the file has an example.
        calibration_cases: how many inputs the file has for calibration; None where it has none.
    """

    format: int
    nestedge: str
    nesting: Nesting
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    divisor: int
    batch_norm: Literal["switchable", "statistics", "shared"]
    aliases: Mapping[str, str]
    examples: tuple[str, ...]
    calibration_cases: int | None


def elastic_tensors(nesting: Nesting) -> dict[str, TensorLayout]:
    """The layouts of the tensors that not every level has whole."""
    return {
        name: layout
        for name, layout in nesting.tensors.items()
        if any(layout.covers()) or layout.requires
    }


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON data."""
    nesting = manifest.nesting
    layouts = elastic_tensors(nesting)
    return {
        "format": FORMAT,
        "nestedge": manifest.nestedge,
        "axes": {name: _axis_to_json(nesting, name) for name in nesting.axes},
        "layouts": {name: _layout_to_json(layout) for name, layout in layouts.items()},
        "levels": [_level_to_json(nesting, name) for name in nesting.levels],
        "masks": {
            tensor: [[name for name in nesting.levels if name in levels] for levels in patterns]
            for tensor, patterns in nesting.patterns.items()
        },
        "labels": None if manifest.labels is None else list(manifest.labels),
        "preprocessing": manifest.preprocessing and manifest.preprocessing.to_json(),
        "divisor": manifest.divisor,
        "batch_norm": manifest.batch_norm,
        "aliases": dict(manifest.aliases),
        "examples": list(manifest.examples),
        "calibration_cases": manifest.calibration_cases,
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
    return {"dims": dims, "inner": inner, "requires": requires}


def _level_to_json(nesting: Nesting, name: str) -> dict[str, Any]:
    kept = {
        axis: [list(interval) for interval in intervals]
        for axis, intervals in nesting.levels[name].kept.items()
    }
    return {"name": name, "kept": kept, "own": sorted(nesting.own[name])}


def check_format(value: Value, *, reader: str) -> None:
    """Check that a manifest is of a version that `reader`, this nestedge, knows.

    Raises:
        FormatError: it is of a newer version; the message says which nestedge wrote it.
    """
    members = value.members()
    if "format" not in members:
        raise FormatError(f"{value.where}: format: missing")
    version = members["format"].integer(minimum=1)
    if version not in _FIELDS:
        writer = members["nestedge"].string() if "nestedge" in members else "an unknown version"
        raise FormatError(
            f"{value.document}: format {version}, written by nestedge {writer}; nestedge {reader} "
            f"reads formats 1 to {FORMAT}: upgrade nestedge"
        )


def manifest_from_json(value: Value) -> Manifest:
    """The manifest in JSON data, of a version that `check_format` let pass.

    Raises:
        FormatError: a field is missing, unknown or wrong; the message names it.
    """
    version = value.members()["format"].integer(minimum=1)
    names = _FIELDS[version]
    fields = dict(zip(names, value.fields(*names), strict=True))
    labels, image = fields["labels"].optional(), fields["preprocessing"].optional()
    # What a file of an older version has no field for, it does not have.
    cases = fields["calibration_cases"].optional() if "calibration_cases" in fields else None
    return Manifest(
        format=version,
        nestedge=fields["nestedge"].string(),
        nesting=_read_nesting(
            *(fields[part] for part in ("axes", "layouts", "levels", "masks")),
            is_fine=version >= FINE,
        ),
        labels=tuple(item.string() for item in labels.elements()) if labels else None,
        preprocessing=Preprocessing.from_json(image) if image else None,
        divisor=fields["divisor"].integer(minimum=1),
        batch_norm=fields["batch_norm"].choice("switchable", "statistics", "shared"),
        aliases={name: item.string() for name, item in fields["aliases"].members().items()},
        examples=tuple(item.string() for item in fields["examples"].elements()),
        calibration_cases=cases.integer(minimum=1) if cases else None,
    )


def _read_nesting(
    axes: Value, layouts: Value, levels: Value, masks: Value, *, is_fine: bool
) -> Nesting:
    found = {name: _read_axis(item, is_fine=is_fine) for name, item in axes.members().items()}
    tensors = {
        name: _read_layout(item, found, is_fine=is_fine) for name, item in layouts.members().items()
    }
    nesting = Nesting(found, tensors)
    for item in levels.elements():
        nesting = _with_level(nesting, item)
    for name, item in axes.members().items():
        _check_bounds(item.members()["bounds"], nesting.segments[name])
    patterns = {
        name: _read_patterns(item, tuple(nesting.levels)) for name, item in masks.members().items()
    }
    return replace(nesting, patterns=patterns)


def _read_axis(value: Value, *, is_fine: bool) -> Axis:
    size, unit, kind, _, *base = value.fields(
        "size", "unit", "kind", "bounds", *(["base"] if is_fine else [])
    )
    return Axis(
        size.integer(minimum=1),
        unit.integer(minimum=1),
        kind.choice(*(KINDS if is_fine else ("width", "depth"))),
        *(item.integer(minimum=0) for item in base),
    )


def _check_bounds(value: Value, segments: tuple[int, ...]) -> None:
    if value.data != list(segments):
        raise value.error(f"{list(segments)} by what the levels keep")


def _read_layout(value: Value, axes: Mapping[str, Axis], *, is_fine: bool) -> TensorLayout:
    dims, requires, *inner = value.fields("dims", "requires", *(["inner"] if is_fine else []))
    return TensorLayout(
        _read_covers(dims, axes),
        tuple(_read_requirement(item, axes) for item in requires.elements()),
        *(_read_covers(item, axes) for item in inner),
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


def _read_requirement(value: Value, axes: Mapping[str, Axis]) -> tuple[str, int]:
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
    if not _LEVEL.fullmatch(name.string()):
        raise name.error("letters, digits, '_' and '-' only, and no '-' first")
    choice = Choice({axis: _read_intervals(item) for axis, item in kept.members().items()})
    tensors = [item.string() for item in own.elements()]
    try:
        return nesting.with_level(name.string(), choice, own=tensors)
    except UsageError as error:
        raise FormatError(f"{value.where}: {error}") from error


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
