"""What an artifact is, and artifact.json, which says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nestedge.artifact.records import CalibrationRecord, DropRecord
from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError
from nestedge.images import as_batch
from nestedge.plugins import Array, TensorInfo, check_inputs
from nestedge.preprocessing import Preprocessing

DESCRIPTION_FILE = "artifact.json"
REFERENCE_FILE = "reference.safetensors"
FORMAT = 3
_OLD_FORMAT = 2
_DTYPES = (
    *("float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32"),
    *("int64", "uint64", "bool"),
)
_FIELDS = (
    *("level", "runtime", "precision", "files", "model", "inputs", "outputs"),
    *("preprocessing", "labels", "tolerance", "parameters", "macs", "producer"),
    *("checked_by", "peak_memory_bytes", "calibration", "key"),
)
# Those that format 2 lacks.
_NEW_FIELDS = ("half_layers", "drop")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an artifact is.

    Attributes:
        level: of the nested network.
        runtime: name of the runtime plug-in that runs it.
        precision: as in "fp32".
        model: name of the file that the runtime opens.
        inputs: static shapes, batch axis included.
        outputs: static shapes, batch axis included.
        preprocessing: of the input that takes images, if one does.
        labels: names of the classes, if it classifies.
        tolerance: largest error against the reference, relative to the largest reference value.
        parameters: number of weights and biases of the level.
        macs: multiply-accumulate operations of one run.
        producer: versions of what made it, by package.
        checked_by: name of the runtime plug-in that opens the model; another than `runtime` where
            that compiles it on the device and nowhere else.
        peak_memory_bytes: weights, and the most bytes of activations that are alive at once in its
            precision; a runtime needs its own memory on top.
        calibration: which data its ranges were taken from; None where it has none.
        key: hash of all that it was made from.
        half_layers: modules whose layers are in half precision, though the precision is of 8 bits.
        drop: what 8 bits cost it; None where that was not limited.
    """

    level: str
    runtime: str
    precision: str
    model: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    tolerance: float
    parameters: int
    macs: int
    producer: Mapping[str, str]
    checked_by: str
    peak_memory_bytes: int
    calibration: CalibrationRecord | None
    key: str
    half_layers: tuple[str, ...] = ()
    drop: DropRecord | None = None

    @property
    def is_engine_unbuilt(self) -> bool:
        """Whether the device still has to compile the model, so that nobody has run that."""
        return self.checked_by != self.runtime

    @property
    def cell(self) -> str:
        """The name of the artifact among those of a build."""
        return f"{self.level}/{self.runtime}-{self.precision}"

    @property
    def note(self) -> str:
        """What 8 bits cost it, and which layers fell back, in words; "" where neither is known."""
        count, names = len(self.half_layers), ", ".join(self.half_layers)
        fallen = f"{count} in half precision: {names}" if count else "none in half precision"
        if self.drop is None:
            return fallen if count else ""
        return f"{self.drop.line}; {fallen}"


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it was written."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Artifact(Description):
    """An artifact on disk.

    Attributes:
        files: every file but artifact.json, by name.
        folder: where they are.
    """

    files: Mapping[str, FileRecord]
    folder: Path

    @property
    def model_path(self) -> Path:
        """The file that the runtime opens."""
        return self.folder / self.model

    @property
    def size_bytes(self) -> int:
        """Bytes that a device must hold to run it: the model, and its weights where they are apart.

        A model of two files has one name with two endings, as model.xml and model.bin of OpenVINO.
        """
        name = self.model.partition(".")[0]
        files = self.files.items()
        return sum(file.size_bytes for other, file in files if other.partition(".")[0] == name)

    def batch(self, array: Array) -> dict[str, Array]:
        """The inputs of one run, from the array of the only input.

        Args:
            array: an image of uint8, where the artifact says how to preprocess one, of shape
                (height, width, channels), or (height, width) for grey; or what the input takes,
                with or without its batch axis of one.

        Raises:
            UsageError: the artifact has several inputs.
            ValueError: the array fits neither; the message says what would.
        """
        if len(self.inputs) != 1:
            names = [info.name for info in self.inputs]
            raise UsageError(f"{self.cell}: has inputs {names}; give a .npz with these names")
        (info,) = self.inputs
        batch = as_batch(array, info, self.preprocessing)
        check_inputs(self.inputs, {info.name: batch})
        return {info.name: batch}


def description_json(
    description: Description, records: Mapping[str, FileRecord]
) -> dict[str, object]:
    """The document that `parse_artifact` reads."""
    preprocessing, labels = description.preprocessing, description.labels
    calibration = description.calibration
    return {
        "format": FORMAT,
        "level": description.level,
        "runtime": description.runtime,
        "precision": description.precision,
        "files": {
            name: {"sha256": record.sha256, "bytes": record.size_bytes}
            for name, record in records.items()
        },
        "model": description.model,
        "inputs": [tensor_to_json(info) for info in description.inputs],
        "outputs": [tensor_to_json(info) for info in description.outputs],
        "preprocessing": None if preprocessing is None else preprocessing.to_json(),
        "labels": None if labels is None else list(labels),
        "tolerance": description.tolerance,
        "parameters": description.parameters,
        "macs": description.macs,
        "producer": dict(description.producer),
        "checked_by": description.checked_by,
        "peak_memory_bytes": description.peak_memory_bytes,
        "calibration": None if calibration is None else calibration.to_json(),
        "key": description.key,
        "half_layers": list(description.half_layers),
        "drop": None if description.drop is None else description.drop.to_json(),
    }


def tensor_to_json(info: TensorInfo) -> dict[str, object]:
    """The JSON object that `tensors_from_json` reads, of one tensor."""
    return {"name": info.name, "shape": list(info.shape), "dtype": info.dtype}


def parse_artifact(document: Value, folder: Path) -> Artifact:
    """The artifact that an artifact.json describes, in `folder`.

    Raises:
        FormatError: a field is missing, unknown or wrong; the message names it.
    """
    version = document.version(FORMAT, _OLD_FORMAT)
    names = _FIELDS if version == _OLD_FORMAT else (*_FIELDS, *_NEW_FIELDS)
    field = dict(zip(names, document.versioned(version, *names), strict=True))
    preprocessing, labels = field["preprocessing"].optional(), field["labels"].optional()
    calibration = field["calibration"].optional()
    half = field.get("half_layers")
    drop = field["drop"].optional() if "drop" in field else None
    artifact = Artifact(
        level=field["level"].name(),
        runtime=field["runtime"].name(),
        precision=field["precision"].name(),
        model=field["model"].name(),
        inputs=tensors_from_json(field["inputs"]),
        outputs=tensors_from_json(field["outputs"]),
        preprocessing=None if preprocessing is None else Preprocessing.from_json(preprocessing),
        labels=None if labels is None else tuple(label.string() for label in labels.elements()),
        tolerance=field["tolerance"].number(),
        parameters=field["parameters"].integer(minimum=0),
        macs=field["macs"].integer(minimum=0),
        producer={name: value.string() for name, value in field["producer"].members().items()},
        checked_by=field["checked_by"].name(),
        peak_memory_bytes=field["peak_memory_bytes"].integer(minimum=0),
        calibration=None if calibration is None else CalibrationRecord.from_json(calibration),
        key=field["key"].sha256(),
        files={name: _file(name, value) for name, value in field["files"].members().items()},
        folder=folder,
        half_layers=() if half is None else tuple(name.string() for name in half.elements()),
        drop=None if drop is None else DropRecord.from_json(drop),
    )
    _check_links(artifact, field)
    return artifact


def _check_links(artifact: Artifact, field: Mapping[str, Value]) -> None:
    """Refuses a description whose parts do not belong together."""
    for name in (artifact.model, REFERENCE_FILE):
        if name not in artifact.files:
            raise field["files"].error(f"a record of {name!r}")
    if artifact.tolerance < 0:
        raise field["tolerance"].error("a number of at least 0")
    preprocessing = artifact.preprocessing
    if preprocessing is None:
        return
    given = field["preprocessing"].members()["input"]
    shapes = {info.name: info.shape for info in artifact.inputs}
    if preprocessing.input not in shapes:
        raise given.error(f"the name of an input, one of {sorted(shapes)}")
    try:
        preprocessing.size(shapes[preprocessing.input])
    except ValueError as error:
        raise FormatError(f"{given.where}: {error}") from error


def tensors_from_json(value: Value, *, dtypes: Sequence[str] = _DTYPES) -> tuple[TensorInfo, ...]:
    """What a network takes or gives, in a JSON array.

    Args:
        value: the array.
        dtypes: those that may occur, by numpy's names.

    Raises:
        FormatError: a field is missing, unknown or wrong, there is none, or a name stands twice.
    """
    infos = tuple(_tensor(element, dtypes) for element in value.elements())
    if not infos or len({info.name for info in infos}) != len(infos):
        raise value.error("at least one tensor, each of another name")
    return infos


def _tensor(value: Value, dtypes: Sequence[str]) -> TensorInfo:
    name, shape, dtype = value.fields("name", "shape", "dtype")
    sizes = tuple(size.integer(minimum=1) for size in shape.elements())
    return TensorInfo(name.string(), sizes, dtype.choice(*dtypes))


def _file(name: str, value: Value) -> FileRecord:
    # The name becomes a path on somebody's device: "../x" must not leave the folder.
    Value(name, value.document, f"{value.path} (its name)").name()
    if name == DESCRIPTION_FILE:
        raise value.error("no record of artifact.json itself")
    sha256, size_bytes = value.fields("sha256", "bytes")
    return FileRecord(sha256.sha256(), size_bytes.integer(minimum=0))
