"""Builds the engine of an artifact, here or on a device behind ssh, by trtexec or by Python."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestedge.artifact import Artifact, check_integrity, read_artifact
from nestedge.documents import write_whole
from nestedge.errors import NestedgeError, UsageError
from nestedge_tensorrt.engine import ENGINE_FILE, EngineSpec, read_spec, trtexec_arguments
from nestedge_tensorrt.fingerprint import Fingerprint
from nestedge_tensorrt.forms import Form, form_for, write_form
from nestedge_tensorrt.logs import BuildLog, failure, read_log
from nestedge_tensorrt.options import (
    BUILT_FILE,
    MODEL_FILE,
    TIMING_FILE,
    EngineOptions,
    check_options,
)
from nestedge_tensorrt.places import Finished, Place
from nestedge_tensorrt.probe import PROBE, PROBE_TOOLS, Device, fingerprint_of, read_device
from nestedge_tensorrt.store import (
    ENGINES_FOLDER,
    LOG_FILE,
    BuiltEngine,
    new_engine,
    store_engine,
)
from nestedge_tensorrt.versions import is_at_least

TOOLS = ("trtexec", "python")
FIRST_PYTHON = "8.5"
"""The first TensorRT whose names in Python the two programs use, with a Python of 3.8."""
JOB_FILE = "job.json"
BUILD_SCRIPT = Path(__file__).with_name("device_build.py")
_MIB = 1 << 20


@dataclass(frozen=True)
class _Attempt:
    """A build that ended well.

    Attributes:
        finished: what the program left.
        log: what that says.
        engine: the file, here.
    """

    finished: Finished
    log: BuildLog
    engine: Path


def build_engine(
    folder: Path,
    place: Place,
    *,
    by: str,
    options: EngineOptions,
    timing_cache: Path | None,
) -> tuple[Path, BuiltEngine]:
    """Builds the engine of the artifact in a folder; the folder that it lies in, and what it is.

    Args:
        folder: of a TensorRT artifact, on this machine.
        place: where the engine is built, and belongs.
        by: "trtexec" or "python".
        options: what is asked of the builder; sparsity is the artifact's.
        timing_cache: file on this machine that timings come from, and go to.

    Raises:
        UsageError: the folder has no such artifact, or the TensorRT there lacks an option.
        MissingDependencyError: the tool is not installed there, or what rewrites the model for it
            is not installed here.
        ConversionError: the model has no form that the TensorRT there builds this engine from.
        NestedgeError: the build failed, or the machine was lost; the message says why.
        IntegrityError: a file of the artifact is missing or changed.
        OSError: this machine's disk is full.
    """
    artifact, spec = read_engine_artifact(folder)
    options = replace(
        options,
        sparsity=spec.options.sparsity,
        timing_cache=timing_cache is not None,
    )
    check_options(spec.precision, options)
    device = read_device(place.run(PROBE + PROBE_TOOLS).output)
    version = device.tool(by)
    check_tool(by, version)
    form = form_for(spec, version, options)
    fingerprint = engine_fingerprint(spec, device, tensorrt=version, options=options)
    with tempfile.TemporaryDirectory(prefix="nestedge-", dir=_engines(artifact)) as work:
        model, spec = write_form(artifact, spec, form, work=Path(work))
        command, job = _command(spec, device, version, by=by, options=options)
        files = {MODEL_FILE: model}
        if timing_cache is not None and timing_cache.is_file():
            files[TIMING_FILE] = timing_cache
        if by == "python":
            Path(work, JOB_FILE).write_text(json.dumps(job))
            files |= {JOB_FILE: Path(work, JOB_FILE), BUILD_SCRIPT.name: BUILD_SCRIPT}
        attempt = _attempt(artifact, place, command, work=Path(work), files=files, by=by)
        _check_gpu(attempt.log, device)
        built = new_engine(
            attempt.engine,
            fingerprint=fingerprint,
            options=options,
            command=command,
            seconds=attempt.log.seconds,
        )
        target = store_engine(
            artifact.folder, attempt.engine, built=built, log=attempt.finished.output
        )
        timings = Path(work, TIMING_FILE)
        if timing_cache is not None and timings.is_file():
            write_whole(timing_cache, timings.read_bytes())
    return target, built


def device_model(
    folder: Path, version: str, options: EngineOptions
) -> tuple[bytes, Form, Sequence[str]]:
    """The model that a TensorRT of a version would be given, its form, and the line that builds it.

    Raises:
        UsageError: the folder has no such artifact, or that TensorRT lacks an option.
        ConversionError: the model has no form that it builds this engine from.
    """
    artifact, spec = read_engine_artifact(folder)
    options = replace(options, sparsity=spec.options.sparsity)
    check_options(spec.precision, options)
    form = form_for(spec, version, options)
    with tempfile.TemporaryDirectory(prefix="nestedge-") as work:
        model, spec = write_form(artifact, spec, form, work=Path(work))
        line = ("trtexec", *trtexec_arguments(spec, version, options))
        return model.read_bytes(), form, line


def read_engine_artifact(folder: Path) -> tuple[Artifact, EngineSpec]:
    """The artifact in a folder, and its engine.json; every file is checked.

    Raises:
        UsageError: there is no artifact, or none of TensorRT.
        FormatError: a file is not what it says it is, or the two are of different models.
        IntegrityError: a file is missing or changed.
    """
    artifact = read_artifact(folder)
    if ENGINE_FILE not in artifact.files:
        raise UsageError(
            f"{artifact.cell}: an engine is built of an artifact of TensorRT, which has "
            f"{ENGINE_FILE}; this one is of {artifact.runtime!r}"
        )
    check_integrity(artifact)
    spec = read_spec(folder / ENGINE_FILE)
    if spec.model_sha256 != artifact.files[artifact.model].sha256:
        raise NestedgeError(
            f"{artifact.cell}: {ENGINE_FILE} is of another model than {artifact.model}: "
            "build or fetch the artifact again"
        )
    return artifact, spec


def engine_fingerprint(
    spec: EngineSpec, device: Device, *, tensorrt: str, options: EngineOptions
) -> Fingerprint:
    """What an engine belongs to that is built of a specification on a device.

    Raises:
        NestedgeError: the device does not say which GPU it has.
    """
    return fingerprint_of(
        device,
        tensorrt=tensorrt,
        model_sha256=spec.model_sha256,
        precision=spec.precision,
        options=options.text(),
    )


def python_job(spec: EngineSpec, version: str, options: EngineOptions) -> dict[str, object]:
    """What device_build.py is told: the same as trtexec, in its own words.

    Raises:
        UsageError: that TensorRT has no such option, or cannot parse the model.
    """
    # Whatever trtexec of that version refuses, the builder behind it does not have either.
    arguments = trtexec_arguments(spec, version, options)
    batches = options.batches
    return {
        "model": MODEL_FILE,
        "engine": BUILT_FILE,
        "explicit_batch": not is_at_least(version, "10.0"),
        "strongly_typed": options.strongly_typed,
        "fp16": "--fp16" in arguments,
        "int8": "--int8" in arguments,
        "tf32": "--noTF32" not in arguments,
        "sparsity": options.sparsity,
        "dla_core": options.dla_core,
        "version_compatible": options.version_compatible,
        "strip_weights": options.strip_weights,
        "workspace_bytes": None if options.workspace_mib is None else options.workspace_mib * _MIB,
        "timing_cache": TIMING_FILE if options.timing_cache else None,
        "shapes": {
            info.name: [[size, *info.shape[1:]] for size in batches.to_json()]
            for info in spec.inputs
        }
        if batches is not None
        else {},
    }


def check_tool(by: str, version: str) -> None:
    """Refuses Python on a device whose TensorRT has other names in Python.

    Raises:
        UsageError: it is older than the programs that run there are for.
    """
    if by == "python" and not is_at_least(version, FIRST_PYTHON):
        raise UsageError(
            f"Python builds and runs engines from TensorRT {FIRST_PYTHON} on, found {version}: "
            "build by trtexec"
        )


def _command(
    spec: EngineSpec, device: Device, version: str, *, by: str, options: EngineOptions
) -> tuple[Sequence[str], dict[str, object]]:
    """What is run in a folder that has the files, and the job that it reads, if it is Python."""
    if by == "trtexec":
        return (device.trtexec, *trtexec_arguments(spec, version, options)), {}
    return ("python3", BUILD_SCRIPT.name, JOB_FILE), python_job(spec, version, options)


def _attempt(
    artifact: Artifact,
    place: Place,
    command: Sequence[str],
    *,
    work: Path,
    files: dict[str, Path],
    by: str,
) -> _Attempt:
    """Runs a build in a folder of the device, and brings what it made."""
    engine = work / BUILT_FILE
    with place.folder() as there:
        place.put(files, there)
        finished = place.run(shlex.join(command), folder=there)
        log = read_log(finished.output)
        is_there = log.passed and finished.status == 0 and place.get(BUILT_FILE, there, to=engine)
        place.get(TIMING_FILE, there, to=work / TIMING_FILE)
    if not is_there or engine.stat().st_size == 0:
        path = artifact.folder / ENGINES_FOLDER / LOG_FILE
        write_whole(path, finished.output.encode())
        where = f"{artifact.cell} on {place.name}"
        raise NestedgeError(
            f"{where}: the engine could not be built: {failure(finished, by)}; see {path}"
        )
    return _Attempt(finished, log, engine)


def _engines(artifact: Artifact) -> Path:
    # On the disk of the artifact, so that the engine is moved into its place in one step.
    folder = artifact.folder / ENGINES_FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def _check_gpu(log: BuildLog, device: Device) -> None:
    """Refuses an engine of another GPU than the device said it has, as where it has several."""
    if log.compute_capability not in ("", device.compute_capability):
        raise NestedgeError(
            f"trtexec built for a GPU of compute capability {log.compute_capability}, the device "
            f"says {device.compute_capability}: choose one by CUDA_VISIBLE_DEVICES"
        )
