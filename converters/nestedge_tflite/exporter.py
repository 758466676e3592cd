"""A level as a TFLite file in single precision, by litert-torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import litert_torch
import torch

from nestedge.convert import LevelProgram, reason_of
from nestedge.errors import NestedgeError
from nestedge.program.emit import FlatModule
from nestedge_tflite.quiet import silenced


def export_model(level: LevelProgram, *, batch: int = 1) -> bytes:
    """A level as the bytes of a TFLite file whose signature is named as the network's.

    Args:
        level: constants are folded where they can be.
        batch: the batch size that the file is fixed to.

    Raises:
        NestedgeError: litert-torch cannot express the network.
    """
    inputs = level.program.inputs
    examples = {s.name: torch.zeros(s.shape_at(batch), dtype=s.dtype) for s in inputs}
    module = FlatModule(level.program, level.tensors).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            with silenced():
                # Inputs and outputs of int64 would be of int32 without it.
                model = litert_torch.convert(module, sample_kwargs=examples, enable_x64=True)
                model.export(str(path))
        except Exception as error:
            # litert-torch raises many types, all about what it cannot express.
            reason = reason_of(error)
            raise NestedgeError(f"litert-torch cannot convert the level: {reason}") from error
        return path.read_bytes()
