"""One level as one plain file, without what an artifact has beside it."""

from __future__ import annotations

import io

import torch

from nestedge.convert import BuildSpec
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


def exported_bytes(nested: NestedModel, level: str) -> bytes:
    """One level as the bytes of a file that torch.export.load reads.

    Raises:
        UsageError: the level does not exist.
    """
    content = io.BytesIO()
    torch.export.save(materialize(nested, level), content)
    return content.getvalue()
