"""One level, or several, as one plain file, without what an artifact has beside it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nestedge.convert import BuildSpec
from nestedge.errors import UsageError
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program, materialize
from nestedge.model import NestedModel
from nestedge.plugins import load_converter


def convert_level(
    nested: NestedModel,
    level: str,
    target: str,
    *,
    spec: BuildSpec | None = None,
    batch: int = 1,
) -> bytes:
    """One level as the bytes of one plain model file.

    Args:
        nested: the network.
        level: of it.
        target: name of a converter.
        spec: precision and calibration data.
        batch: the batch size that the file is fixed to; calibration data has a batch of 1.

    Raises:
        UsageError: the level or target does not exist.
        NestedgeError: the converter cannot express the level.
    """
    converter = load_converter(target)
    exported = converter.export(fold_batch_norms(level_program(nested, level)), batch=batch)
    return exported.convert(spec or BuildSpec()).model


def convert_levels(
    nested: NestedModel,
    levels: Sequence[str],
    target: str,
    *,
    spec: BuildSpec | None = None,
    batch: int = 1,
) -> bytes:
    """Several levels as the bytes of one plain model file, with what they have in common once.

    Args:
        nested: the network.
        levels: of it; the file has each under its name.
        target: name of a converter.
        spec: precision.
        batch: the batch size that the file is fixed to.

    Raises:
        UsageError: a level or the target does not exist, its files have one level each, or its
            files of several levels do not have the precision.
        NestedgeError: the converter cannot express a level.
    """
    converter = load_converter(target)
    export: Callable[..., Any] | None = getattr(converter, "export_levels", None)
    if export is None:
        raise UsageError(f"a file of {target!r} has one level, found {list(levels)}: give one")
    programs = {name: fold_batch_norms(level_program(nested, name)) for name in levels}
    content: bytes = export(programs, batch=batch).convert(spec or BuildSpec())
    return content


def exported_bytes(nested: NestedModel, level: str) -> bytes:
    """One level as the bytes of a file that torch.export.load reads.

    Raises:
        UsageError: the level does not exist.
    """
    content = io.BytesIO()
    torch.export.save(materialize(nested, level), content)
    return content.getvalue()
