"""engine.json: how a device builds its TensorRT engine, and what that engine must then match.

An engine belongs to the TensorRT and the GPU that built it, so that none is shipped: the artifact
has portable ONNX and this file, which says that the engine is unbuilt and verified by nobody.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nestedge.artifact import tensor_to_json, tensors_from_json
from nestedge.documents import Value, read_json
from nestedge.errors import UsageError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt import engine1
from nestedge_tensorrt.fingerprint import FINGERPRINT
from nestedge_tensorrt.options import (
    BOUNDARIES,
    BUILT_FILE,
    MODEL_FILE,
    EngineOptions,
    build_arguments,
)
from nestedge_tensorrt.versions import is_at_least

ENGINE_FILE = "engine.json"
FORMAT = 2
PRECISIONS = ("fp32", "fp16", "int8")
DTYPES = ("float32", "float16", "int32", "int64", "bool", "uint8")
"""What TensorRT takes and gives: its DataType, less what stands for quantised numbers."""

VERSIONS = ("8.5", "8.6", "9.2", "10.0")
"""The versions of TensorRT whose ONNX parsers differ in what our files have, oldest first."""

_SCALES = "in the model's QuantizeLinear and DequantizeLinear nodes; trtexec needs no --calib"


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
        options: what is asked of the builder; a device may ask for more.
    """

    precision: str
    model_sha256: str
    opset: int
    minimum_tensorrt: str
    batch: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    calibration_cases: int | None
    options: EngineOptions = field(default_factory=EngineOptions)

    def to_json(self) -> dict[str, object]:
        """The document that `from_json` reads."""
        return {
            **_common_json(self),
            "format": FORMAT,
            "tensorrt": {"minimum": self.minimum_tensorrt},
            "options": self.options.to_json(),
            "trtexec": {"lines": _lines(self), "writes": BUILT_FILE},
            "fingerprint": [asdict(item) for item in FINGERPRINT],
        }

    @classmethod
    def from_json(cls, document: Value) -> EngineSpec:
        """The specification in an engine.json of this format, or of the one before.

        What follows from the rest, the command lines above all, must be what nestedge writes: a
        line that somebody put into the file is never run.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        if document.version(FORMAT, engine1.FORMAT) == engine1.FORMAT:
            return _read1(document)
        fields = dict(zip(_FIELDS, document.versioned(FORMAT, *_FIELDS), strict=True))
        (minimum,) = fields["tensorrt"].fields("minimum")
        spec = _spec(fields, minimum, EngineOptions.from_json(fields["options"]))
        _check_derived(fields, spec.to_json())
        return spec


def read_spec(path: Path) -> EngineSpec:
    """The specification in a file.

    Raises:
        FormatError: it is not one.
        OSError: it cannot be read.
    """
    return EngineSpec.from_json(read_json(path))


def trtexec_arguments(
    spec: EngineSpec, version: str, options: EngineOptions | None = None
) -> tuple[str, ...]:
    """What trtexec of a version is given, in the folder of the artifact, to build the engine.

    None of it is about shapes where these are static: trtexec refuses it then.

    Args:
        spec: of the engine.
        version: of TensorRT, as in "8.5" or "10.3.0.30".
        options: instead of those of the specification.

    Raises:
        UsageError: that TensorRT cannot parse the model, or has no such option.
    """
    if not is_at_least(version, spec.minimum_tensorrt):
        raise UsageError(
            f"the model needs TensorRT {spec.minimum_tensorrt}, found {version}: its parser does "
            "not know all of the operators and types"
        )
    asked = spec.options if options is None else options
    return build_arguments(spec.precision, asked, version, inputs=spec.inputs)


_FIELDS = (
    *("engine", "verified", "precision", "model", "tensorrt", "batch", "inputs"),
    *("outputs", "calibration", "options", "trtexec", "fingerprint"),
)


def _common_json(spec: EngineSpec) -> dict[str, object]:
    """What all formats have."""
    cases = spec.calibration_cases
    return {
        "engine": "unbuilt",
        "verified": False,
        "precision": spec.precision,
        "model": {"file": MODEL_FILE, "sha256": spec.model_sha256, "opset": spec.opset},
        "batch": spec.batch,
        "inputs": [tensor_to_json(info) for info in spec.inputs],
        "outputs": [tensor_to_json(info) for info in spec.outputs],
        "calibration": None if cases is None else {"cases": cases, "scales": _SCALES},
    }


def _read1(document: Value) -> EngineSpec:
    values = document.versioned(engine1.FORMAT, *engine1.FIELDS)
    fields = dict(zip(engine1.FIELDS, values, strict=True))
    minimum, _ = fields["tensorrt"].fields("minimum", "below")
    spec = _spec(fields, minimum, EngineOptions())
    _check_derived(fields, _document1(spec))
    return spec


def _document1(spec: EngineSpec) -> dict[str, object]:
    return {
        **_common_json(spec),
        "tensorrt": {"minimum": spec.minimum_tensorrt, "below": engine1.BELOW},
        "trtexec": engine1.command_json(spec.precision),
        "fingerprint": engine1.fingerprint_json(),
    }


def _spec(fields: Mapping[str, Value], minimum: Value, options: EngineOptions) -> EngineSpec:
    _, sha256, opset = fields["model"].fields("file", "sha256", "opset")
    precision = fields["precision"].choice(*PRECISIONS)
    return EngineSpec(
        precision=precision,
        model_sha256=sha256.sha256(),
        opset=opset.integer(minimum=1),
        minimum_tensorrt=minimum.choice(*VERSIONS),
        batch=fields["batch"].integer(minimum=1),
        inputs=tensors_from_json(fields["inputs"], dtypes=DTYPES),
        outputs=tensors_from_json(fields["outputs"], dtypes=DTYPES),
        calibration_cases=_cases(fields["calibration"], precision),
        options=options,
    )


def _check_derived(fields: Mapping[str, Value], written: Mapping[str, object]) -> None:
    """Refuses a document in which something is not what nestedge would have written."""
    for name, found in fields.items():
        expected = json.dumps(written[name], sort_keys=True)
        # As text: JSON's false is not its 0, but Python's is.
        if json.dumps(found.data, sort_keys=True) != expected:
            raise found.error(expected)


def _lines(spec: EngineSpec) -> dict[str, str | None]:
    """The command line by the first version of TensorRT that it is for; None where there is none.

    Versions stand in ascending order, and only those whose line is another one than before.
    """
    later = [v for v in BOUNDARIES if not is_at_least(spec.minimum_tensorrt, v)]
    found: dict[str, str | None] = {}
    for version in (spec.minimum_tensorrt, *later):
        line = _line(spec, version)
        if not found or line != list(found.values())[-1]:
            found[version] = line
    return found


def _line(spec: EngineSpec, version: str) -> str | None:
    try:
        return shlex.join(("trtexec", *trtexec_arguments(spec, version)))
    except UsageError:
        return None


def _cases(value: Value, precision: str) -> int | None:
    calibration = value.optional()
    if (calibration is None) == (precision == "int8"):
        raise value.error("an object for int8, null for the rest")
    if calibration is None:
        return None
    cases, _ = calibration.fields("cases", "scales")
    return cases.integer(minimum=1)
