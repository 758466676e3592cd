"""Runs the reference inputs of an artifact in its engine, where that was built."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, Reference, read_reference
from nestedge.errors import NestedgeError, VerificationError
from nestedge.expressions import Array
from nestedge.plugins import TensorInfo
from nestedge.verify import relative_error
from nestedge_tensorrt.building import (
    JOB_FILE,
    check_tool,
    engine_fingerprint,
    read_engine_artifact,
)
from nestedge_tensorrt.logs import failure
from nestedge_tensorrt.options import BUILT_FILE, MODEL_FILE, EngineOptions
from nestedge_tensorrt.places import Place
from nestedge_tensorrt.probe import PROBE, PROBE_TOOLS, read_device
from nestedge_tensorrt.samples import in_batches
from nestedge_tensorrt.store import UNVERIFIED, VERIFIED, BuiltEngine, usable_engine, write_state

RUN_SCRIPT = Path(__file__).with_name("device_run.py")
_GIVEN = "given.bin"
_COMPUTED = "computed.bin"


def verify_engine(folder: Path, place: Place) -> BuiltEngine:
    """Compares what an engine gives with what the level gave; the engine, verified from now on.

    Python with TensorRT's module runs it on the device; nothing of nestedge is needed there.

    Raises:
        UsageError: there is no artifact of TensorRT, no engine of it, or TensorRT is too old to be
            run from Python.
        MissingDependencyError: the device has no TensorRT for Python.
        NestedgeError: the engine belongs elsewhere, or could not be run.
        VerificationError: it is not its level; it stays unverified.
        IntegrityError: a file is missing or changed.
    """
    artifact, spec = read_engine_artifact(folder)
    device = read_device(place.run(PROBE + PROBE_TOOLS).output)
    version = device.tool("python")
    check_tool("python", version)
    here = engine_fingerprint(spec, device, tensorrt=version, options=EngineOptions())
    path, built = usable_engine(artifact, here)
    reference = read_reference(artifact)
    batches = built.options.batches
    # Kernels are chosen for the best size; the others are those that they must do too.
    given = [reference]
    if batches is not None:
        given = [in_batches(reference, size) for size in sorted(set(batches.to_json()))]
    error, name = max(
        _worst(artifact, place, reference, engine=path, built=built) for reference in given
    )
    passed = error <= artifact.tolerance
    found = replace(
        built,
        state=VERIFIED if passed else UNVERIFIED,
        # JSON has no infinity.
        max_error=error if math.isfinite(error) else None,
        runtime_version=f"TensorRT {version}",
    )
    write_state(folder, found)
    if not passed:
        raise VerificationError(
            f"{artifact.cell} on {place.name}: the engine is not its level: output {name!r}: "
            f"error {error:.3g} is above {artifact.tolerance:.3g}"
        )
    return found


def _worst(
    artifact: Artifact, place: Place, reference: Reference, *, engine: Path, built: BuiltEngine
) -> tuple[float, str]:
    """The largest error of an output, and the name of that."""
    with tempfile.TemporaryDirectory(prefix="nestedge-") as work:
        computed = _run(artifact, place, reference, engine=engine, built=built, work=Path(work))
    infos = _sized(artifact.outputs, reference.outputs)
    outputs = _arrays(computed, infos, reference.cases, where=artifact.cell)
    return max(
        (relative_error(outputs[info.name], reference.outputs[info.name]), info.name)
        for info in infos
    )


def _sized(infos: Sequence[TensorInfo], arrays: Mapping[str, Array]) -> tuple[TensorInfo, ...]:
    """Tensors in the batch size that the cases of a reference have."""
    return tuple(replace(info, shape=arrays[info.name].shape[1:]) for info in infos)


def _run(
    artifact: Artifact,
    place: Place,
    reference: Reference,
    *,
    engine: Path,
    built: BuiltEngine,
    work: Path,
) -> bytes:
    """What the engine computes, case after case, and in each case output after output."""
    (work / JOB_FILE).write_text(json.dumps(_job(artifact, built, reference)))
    (work / _GIVEN).write_bytes(_given(artifact.inputs, reference))
    files = {name: work / name for name in (JOB_FILE, _GIVEN)}
    files |= {RUN_SCRIPT.name: RUN_SCRIPT, BUILT_FILE: engine}
    if built.options.strip_weights:
        files[MODEL_FILE] = artifact.model_path
    with place.folder() as there:
        place.put(files, there)
        finished = place.run(f"python3 {RUN_SCRIPT.name} {JOB_FILE}", folder=there)
        if finished.status != 0 or not place.get(_COMPUTED, there, to=work / _COMPUTED):
            raise NestedgeError(
                f"{artifact.cell} on {place.name}: the engine could not be run: "
                f"{failure(finished, 'python3')}"
            )
    return (work / _COMPUTED).read_bytes()


def _job(artifact: Artifact, built: BuiltEngine, reference: Reference) -> dict[str, object]:
    def tensors(infos: Sequence[TensorInfo]) -> list[dict[str, object]]:
        return [
            {"name": info.name, "shape": list(info.shape), "bytes": size_bytes(info)}
            for info in infos
        ]

    return {
        "engine": BUILT_FILE,
        "model": MODEL_FILE if built.options.strip_weights else None,
        "has_code": built.options.version_compatible,
        "inputs": tensors(_sized(artifact.inputs, reference.inputs)),
        "outputs": tensors(_sized(artifact.outputs, reference.outputs)),
        "cases": reference.cases,
        "given": _GIVEN,
        "computed": _COMPUTED,
    }


def size_bytes(info: TensorInfo) -> int:
    """How many bytes a tensor has.

    >>> size_bytes(TensorInfo("x", (2, 3), "float16"))
    12
    """
    return math.prod(info.shape) * np.dtype(info.dtype).itemsize


def _given(inputs: Sequence[TensorInfo], reference: Reference) -> bytes:
    cases = (reference.case(index) for index in range(reference.cases))
    return b"".join(
        np.ascontiguousarray(case[info.name]).tobytes() for case in cases for info in inputs
    )


def _arrays(
    content: bytes, infos: Sequence[TensorInfo], cases: int, *, where: str
) -> dict[str, Array]:
    """The outputs by name, each of shape (cases, *shape)."""
    expected = cases * sum(size_bytes(info) for info in infos)
    if len(content) != expected:
        raise NestedgeError(
            f"{where}: the engine gave {len(content)} bytes of outputs, expected {expected}"
        )
    found: dict[str, list[Array]] = {info.name: [] for info in infos}
    offset = 0
    for _ in range(cases):
        for info in infos:
            array: Array = np.frombuffer(
                content, info.dtype, count=math.prod(info.shape), offset=offset
            )
            found[info.name].append(array.reshape(info.shape))
            offset += size_bytes(info)
    return {name: np.stack(arrays) for name, arrays in found.items()}
