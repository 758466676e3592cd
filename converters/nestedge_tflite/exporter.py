"""A level as a TFLite file in single precision, by litert-torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import litert_torch
import torch

from nestedge.convert import LevelProgram
from nestedge.diagnosis import failed
from nestedge.program.emit import FlatModule
from nestedge.redirection import silenced
from nestedge_tflite.biases import with_flat_biases

SIGNATURE = "serving_default"
"""The name of the signature of a file that has one level."""


def export_model(level: LevelProgram, *, batch: int = 1) -> bytes:
    """A level as the bytes of a TFLite file whose signature is named as the network's.

    Args:
        level: constants are folded where they can be.
        batch: the batch size that the file is fixed to.

    Raises:
        ConversionError: litert-torch cannot express the network.
    """
    return export_levels({SIGNATURE: level}, batch=batch)


def export_levels(levels: Mapping[str, LevelProgram], *, batch: int = 1) -> bytes:
    """Several levels as the bytes of one TFLite file; tensors that are the same are there once.

    Args:
        levels: by the name that the signature of each has.
        batch: the batch size that the file is fixed to.

    Raises:
        ConversionError: litert-torch cannot express one of the networks.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            with silenced():
                # Inputs and outputs of int64 would be of int32 without it.
                model = _signed(levels, batch=batch).convert(enable_x64=True)
                model.export(str(path))
        except Exception as error:
            # litert-torch raises many types, all about what it cannot express.
            program = next(iter(levels.values())).program if len(levels) == 1 else None
            task = "litert-torch cannot convert the level"
            raise failed(task, error, program, otherwise="converter-failed") from error
        return with_flat_biases(path.read_bytes())


def _signed(levels: Mapping[str, LevelProgram], *, batch: int) -> Any:
    """litert-torch's converter of some levels."""
    converter: Any = litert_torch
    for name, level in levels.items():
        inputs = level.program.inputs
        examples = {s.name: torch.zeros(s.shape_at(batch), dtype=s.dtype) for s in inputs}
        module = FlatModule(level.program, level.tensors).eval()
        converter = converter.signature(name, module, sample_kwargs=examples)
    return converter
