"""engine.json: how a device builds its TensorRT engine, and what that engine must then match.

An engine belongs to the TensorRT and the GPU that built it, so that none is shipped: the artifact
has portable ONNX and this file, which says that the engine is unbuilt and verified by nobody.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass

from nestedge.artifact import tensor_to_json, tensors_from_json
from nestedge.documents import Value
from nestedge.plugins import TensorInfo

ENGINE_FILE = "engine.json"
MODEL_FILE = "model.onnx"
BUILT_FILE = "model.engine"
FORMAT = 1
DTYPES = ("float32", "float16", "int32", "int64", "bool", "uint8")
"""What TensorRT takes and gives: its DataType, less what stands for quantised numbers."""

VERSIONS = ("8.5", "8.6", "9.2", "10.0")
"""The versions of TensorRT whose ONNX parsers differ in what our files have, oldest first."""

BELOW = "11.0"
"""The first TensorRT that cannot build these files: it has no --fp16 and no --int8 any more."""

_SCALES = "in the model's QuantizeLinear and DequantizeLinear nodes; trtexec needs no --calib"

_FLAGS = {
    # Without it TensorRT multiplies in TF32, of 10 bits, where the GPU has it (Orin does).
    "fp32": ("--noTF32",),
    "fp16": ("--fp16",),
    # Layers without pairs run in half precision.
    "int8": ("--int8", "--fp16"),
}


@dataclass(frozen=True)
class FingerprintField:
    """One of the things that an engine belongs to.

    Attributes:
        field: its name.
        read: the command, or the place, that shows it on the device.
        mismatch: what an engine is worth where it differs: "another network", "does not load",
            "not supported" or "other timing".
    """

    field: str
    read: str
    mismatch: str


FINGERPRINT = (
    FingerprintField("model_sha256", f"sha256sum {MODEL_FILE}", "another network"),
    FingerprintField("precision", f"precision of {ENGINE_FILE}", "another network"),
    FingerprintField(
        "compute_capability", "'Compute Capability:' in what trtexec prints", "does not load"
    ),
    FingerprintField("tensorrt", "dpkg-query --show 'libnvinfer[0-9]*'", "does not load"),
    FingerprintField("device", "cat /proc/device-tree/model", "not supported"),
    FingerprintField("l4t", "head -n 1 /etc/nv_tegra_release", "not supported"),
    FingerprintField("jetpack", "dpkg-query --show nvidia-jetpack", "not supported"),
    FingerprintField("cuda", "cat /usr/local/cuda/version.json", "not supported"),
    FingerprintField("power_mode", "nvpmodel -q", "other timing"),
    FingerprintField("clocks", "sudo jetson_clocks --show", "other timing"),
)
"""What to write down beside an engine; on a Jetson the GPU driver is part of L4T."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What an engine is to be built from, and for.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        model_sha256: of the ONNX file.
        opset: of the ONNX file.
        minimum_tensorrt: the first of `VERSIONS` whose parser knows all that is in the ONNX file.
        batch: the batch size that the shapes are for.
        inputs: static shapes, batch axis included.
        outputs: static shapes, batch axis included.
        calibration_cases: how many inputs the ranges of int8 were taken from; None otherwise.
    """

    precision: str
    model_sha256: str
    opset: int
    minimum_tensorrt: str
    batch: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    calibration_cases: int | None

    def to_json(self) -> dict[str, object]:
        """The document that `from_json` reads."""
        cases = self.calibration_cases
        arguments = trtexec_arguments(self)
        return {
            "format": FORMAT,
            "engine": "unbuilt",
            "verified": False,
            "precision": self.precision,
            "model": {"file": MODEL_FILE, "sha256": self.model_sha256, "opset": self.opset},
            "tensorrt": {"minimum": self.minimum_tensorrt, "below": BELOW},
            "batch": self.batch,
            "inputs": [tensor_to_json(info) for info in self.inputs],
            "outputs": [tensor_to_json(info) for info in self.outputs],
            "calibration": None if cases is None else {"cases": cases, "scales": _SCALES},
            "trtexec": {
                "arguments": list(arguments),
                "line": shlex.join(("trtexec", *arguments)),
                "writes": BUILT_FILE,
            },
            "fingerprint": [asdict(field) for field in FINGERPRINT],
        }

    @classmethod
    def from_json(cls, document: Value) -> EngineSpec:
        """The specification in an engine.json.

        What follows from the rest, the command line above all, must be what nestedge writes: a line
        that somebody put into the file is never run.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        field = dict(zip(_FIELDS, document.versioned(FORMAT, *_FIELDS), strict=True))
        model, tensorrt = field["model"], field["tensorrt"]
        _, sha256, opset = model.fields("file", "sha256", "opset")
        minimum, _ = tensorrt.fields("minimum", "below")
        precision = field["precision"].choice(*_FLAGS)
        spec = cls(
            precision=precision,
            model_sha256=sha256.sha256(),
            opset=opset.integer(minimum=1),
            minimum_tensorrt=minimum.choice(*VERSIONS),
            batch=field["batch"].integer(minimum=1),
            inputs=tensors_from_json(field["inputs"], dtypes=DTYPES),
            outputs=tensors_from_json(field["outputs"], dtypes=DTYPES),
            calibration_cases=_cases(field["calibration"], precision),
        )
        written = spec.to_json()
        for name in _FIELDS:
            expected = json.dumps(written[name], sort_keys=True)
            # As text: JSON's false is not its 0, but Python's is.
            if json.dumps(field[name].data, sort_keys=True) != expected:
                raise field[name].error(expected)
        return spec


_FIELDS = (
    *("engine", "verified", "precision", "model", "tensorrt", "batch", "inputs"),
    *("outputs", "calibration", "trtexec", "fingerprint"),
)


def trtexec_arguments(spec: EngineSpec) -> tuple[str, ...]:
    """What trtexec is given, in the folder of the artifact, by every TensorRT from 8.5 to 10.

    None of it is about shapes: trtexec refuses --shapes for a model whose shapes are static. It
    measures what it has built; the option that stops it is --buildOnly in TensorRT 8.5 and
    --skipInference from 8.6 on.
    """
    return (f"--onnx={MODEL_FILE}", f"--saveEngine={BUILT_FILE}", *_FLAGS[spec.precision])


def _cases(value: Value, precision: str) -> int | None:
    calibration = value.optional()
    if (calibration is None) == (precision == "int8"):
        raise value.error("an object for int8, null for the rest")
    if calibration is None:
        return None
    cases, _ = calibration.fields("cases", "scales")
    return cases.integer(minimum=1)
