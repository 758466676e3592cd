"""manifest.json of a .nest: the levels, and what travels with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nestedge.documents import Value
from nestedge.errors import FormatError
from nestedge.nesting import Nesting
from nestedge.nesting_document import nesting_from_json, nesting_to_json
from nestedge.preprocessing import Preprocessing

FORMAT = 5
"""The version of the format that this nestedge writes; it reads every version up to it."""

_FIELDS_1 = (
    *("format", "nestedge", "axes", "layouts", "levels", "masks", "labels"),
    *("preprocessing", "divisor", "batch_norm", "aliases", "examples"),
)
_FIELDS_2 = (*_FIELDS_1, "calibration_cases")
_FIELDS_4 = (*_FIELDS_2, "own", "consensus")
_FIELDS = {1: _FIELDS_1, 2: _FIELDS_2, 3: _FIELDS_2, 4: _FIELDS_4, 5: _FIELDS_4}
"""The fields of every version of the format. Calibration data came with 2.

With 3 came the `base` of an axis and the `inner` runs of a layout, with 4 the outputs that a layout
`serves`, with 5 the lines of the user's code in program.json.
"""


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
        own: patterns of the other tensors of which a new level gets a copy of its own.
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
    own: tuple[str, ...]
    aliases: Mapping[str, str]
    examples: tuple[str, ...]
    calibration_cases: int | None


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON data."""
    return {
        "format": FORMAT,
        "nestedge": manifest.nestedge,
        **nesting_to_json(manifest.nesting),
        "labels": None if manifest.labels is None else list(manifest.labels),
        "preprocessing": manifest.preprocessing and manifest.preprocessing.to_json(),
        "divisor": manifest.divisor,
        "batch_norm": manifest.batch_norm,
        "own": list(manifest.own),
        "aliases": dict(manifest.aliases),
        "examples": list(manifest.examples),
        "calibration_cases": manifest.calibration_cases,
    }


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
    own = fields.get("own")
    return Manifest(
        format=version,
        nestedge=fields["nestedge"].string(),
        nesting=nesting_from_json(fields, version=version),
        labels=tuple(item.string() for item in labels.elements()) if labels else None,
        preprocessing=Preprocessing.from_json(image) if image else None,
        divisor=fields["divisor"].integer(minimum=1),
        batch_norm=fields["batch_norm"].choice("switchable", "statistics", "shared"),
        own=tuple(item.string() for item in own.elements()) if own else (),
        aliases={name: item.string() for name, item in fields["aliases"].members().items()},
        examples=tuple(item.string() for item in fields["examples"].elements()),
        calibration_cases=cases.integer(minimum=1) if cases else None,
    )
