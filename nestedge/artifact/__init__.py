"""Artifacts: one level for one runtime in one precision, with what proves that it is that level.

A folder `<level>/<runtime>-<precision>` holds the model, `reference.safetensors` (inputs and the
outputs that the level gives for them), whatever else the converter recorded, and `artifact.json`,
which describes the cell and has the hash of every other file. The folder's path below the build
folder is how a cell is called: "small/onnx-fp32".
"""

from nestedge.artifact.description import (
    DESCRIPTION_FILE,
    REFERENCE_FILE,
    Artifact,
    Description,
    FileRecord,
    tensor_to_json,
    tensors_from_json,
)
from nestedge.artifact.records import CalibrationRecord, DropRecord
from nestedge.artifact.reference import Reference, read_reference, reference_bytes
from nestedge.artifact.store import check_integrity, find_artifacts, read_artifact, write_artifact

__all__ = [
    "DESCRIPTION_FILE",
    "REFERENCE_FILE",
    "Artifact",
    "CalibrationRecord",
    "Description",
    "DropRecord",
    "FileRecord",
    "Reference",
    "check_integrity",
    "find_artifacts",
    "read_artifact",
    "read_reference",
    "reference_bytes",
    "tensor_to_json",
    "tensors_from_json",
    "write_artifact",
]
