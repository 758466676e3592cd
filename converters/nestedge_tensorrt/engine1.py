"""engine.json of format 1, which nestedge 0.1 wrote: one line for every TensorRT from 8.5 to 10."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

FORMAT = 1
FIELDS = (
    *("engine", "verified", "precision", "model", "tensorrt", "batch", "inputs"),
    *("outputs", "calibration", "trtexec", "fingerprint"),
)
BELOW = "11.0"

_FLAGS = {"fp32": ("--noTF32",), "fp16": ("--fp16",), "int8": ("--int8", "--fp16")}

_FINGERPRINT = (
    ("model_sha256", "sha256sum model.onnx", "another network"),
    ("precision", "precision of engine.json", "another network"),
    ("compute_capability", "'Compute Capability:' in what trtexec prints", "does not load"),
    ("tensorrt", "dpkg-query --show 'libnvinfer[0-9]*'", "does not load"),
    ("device", "cat /proc/device-tree/model", "not supported"),
    ("l4t", "head -n 1 /etc/nv_tegra_release", "not supported"),
    ("jetpack", "dpkg-query --show nvidia-jetpack", "not supported"),
    ("cuda", "cat /usr/local/cuda/version.json", "not supported"),
    ("power_mode", "nvpmodel -q", "other timing"),
    ("clocks", "sudo jetson_clocks --show", "other timing"),
)


def command_json(precision: str) -> dict[str, object]:
    """The field "trtexec"."""
    arguments = ["--onnx=model.onnx", "--saveEngine=model.engine", *_FLAGS[precision]]
    line = shlex.join(("trtexec", *arguments))
    return {"arguments": arguments, "line": line, "writes": "model.engine"}


def fingerprint_json() -> Sequence[dict[str, str]]:
    """The field "fingerprint"."""
    names = ("field", "read", "mismatch")
    return [dict(zip(names, row, strict=True)) for row in _FINGERPRINT]
