"""TFLite files as anyone makes them from ONNX files: onnx2tf, with its defaults.

It is the program of that name on PATH, from an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import onnx
from torch import Tensor, nn

from benchmarks.converters import stock_onnx
from benchmarks.converters.stock import Files
from nestedge.plugins import Array


def files(module: nn.Module, image: Tensor, images: Array) -> Files:
    """onnx2tf behind torch.onnx, in single precision.

    Args:
        module: in evaluation mode.
        image: an example, batch of 1.
        images: not needed.
    """
    content = stock_onnx.files(module, image, images)["fp32"]()
    return {"fp32": lambda: _translated(content)}


def _translated(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        (name,) = (value.name for value in onnx.load_from_string(content).graph.input)
        subprocess.run(
            ["onnx2tf", "-i", path.name, "-o", "out", "-kat", name, "--non_verbose"],
            cwd=folder,
            # Its Python must not find our packages.
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            capture_output=True,
            check=True,
        )
        return (path.parent / "out" / "model_float32.tflite").read_bytes()
