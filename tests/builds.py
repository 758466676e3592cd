"""Builds in this process: the same artifacts as from a worker, without its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nestedge.artifact import Artifact, write_artifact
from nestedge.building.cells import draft_artifact, prepare_level
from nestedge.model import NestedModel
from nestedge.plugins import load_converter


def build_here(
    nested: NestedModel,
    folder: Path,
    *,
    targets: Sequence[str] = ("onnx",),
    levels: Sequence[str] | None = None,
    precisions: Sequence[str] = ("fp32",),
) -> list[Artifact]:
    """The artifacts of some levels for some targets, written into a build folder."""
    found = []
    for name in levels if levels is not None else nested.levels:
        level = prepare_level(nested, name)
        for target in targets:
            converter = load_converter(target)
            exported = converter.export(level.program)
            for precision in precisions:
                draft = draft_artifact(
                    level,
                    exported,
                    converter,
                    precision=precision,
                    calibration=nested.calibration if precision == "int8" else None,
                    weight_steps="family",
                    key="0" * 64,
                )
                cell = draft.description.cell
                found.append(write_artifact(folder / cell, draft.description, files=draft.files))
    return found
