"""Is an artifact still its level? numpy and one runtime, so that it runs on a device too.

Every artifact carries inputs and what the level, run by torch, gave for them. The runtime that
opens its model runs them again here, and the outputs are compared. A build folder keeps the results
in verifications.json; one counts only for the model file whose hash it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, check_integrity, find_artifacts, read_reference
from nestedge.documents import Value, json_bytes, read_json, write_whole
from nestedge.errors import NestedgeError, UsageError
from nestedge.plugins import Array, Runtime, TensorInfo, load_runtime, reads
from nestedge.profiling.measurement import describe_device

VERIFICATIONS_FILE = "verifications.json"
FORMAT = 1
ENGINE_UNBUILT = "engine unbuilt and unverified: only its ONNX ran"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What the comparison of one artifact with its level gave.

    Attributes:
        cell: the artifact.
        model_sha256: of the model file that ran; one built since did not.
        runtime: name of the runtime plug-in that ran it.
        runtime_version: its framework and the version of that.
        device: the machine that it ran on.
        max_error: of the worst output, max|a - b| / max|b| over all cases; inf where an output is
            missing, misshaped or not a number.
        tolerance: the artifact's.
        passed: whether the error is within the tolerance.
        output: name of the worst output, or "" where nothing ran.
        reason: why it failed, or "".
        cases: how many reference inputs were run.
        note: what the comparison leaves open, or "".
    """

    cell: str
    model_sha256: str
    runtime: str
    runtime_version: str
    device: str
    max_error: float
    tolerance: float
    passed: bool
    output: str
    reason: str
    cases: int
    note: str

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        # JSON has no infinity.
        max_error = self.max_error if math.isfinite(self.max_error) else None
        return {**asdict(self), "max_error": max_error}

    @classmethod
    def from_json(cls, value: Value) -> Verification:
        """The result in a JSON object.

        Raises:
            FormatError: a field is missing, unknown or wrong.
        """
        names = tuple(cls.__dataclass_fields__)
        field = dict(zip(names, value.fields(*names), strict=True))
        error = field["max_error"].optional()
        max_error = math.inf if error is None else error.number()
        tolerance = field["tolerance"].number()
        passed = max_error <= tolerance
        if field["passed"].data is not passed:
            raise field["passed"].error(f"{str(passed).lower()}, by max_error and tolerance")
        return cls(
            cell=field["cell"].string(),
            model_sha256=field["model_sha256"].sha256(),
            runtime=field["runtime"].name(),
            runtime_version=field["runtime_version"].string(),
            device=field["device"].string(),
            max_error=max_error,
            tolerance=tolerance,
            passed=passed,
            output=field["output"].string(),
            reason=field["reason"].string(),
            cases=field["cases"].integer(minimum=1),
            note=field["note"].string(),
        )


def verify_folder(
    folder: Path,
    *,
    runtime: str | None = None,
    threads: int = 1,
    after_each: Callable[[Verification], None] | None = None,
) -> list[Verification]:
    """Verifies the artifacts in a folder, by cell. All hashes are checked before anything runs.

    Args:
        folder: as `nestedge.artifact.find_artifacts` takes it.
        runtime: name of a runtime plug-in: it runs the artifacts whose model it opens, and no
            others are verified; without it all are, each by the plug-in it was built to be
            checked by.
        threads: CPU threads of the runtimes.
        after_each: is called with each result, to show progress.

    Raises:
        IntegrityError: a file is missing or changed.
        MissingDependencyError: the runtime of an artifact is not installed.
        UsageError: there is no such runtime, or it opens none of the artifacts.
    """
    artifacts = find_artifacts(folder)
    if runtime is not None:
        artifacts = _readable(artifacts, load_runtime(runtime))
    for artifact in artifacts:
        check_integrity(artifact)
    names = {artifact.cell: runtime or artifact.checked_by for artifact in artifacts}
    runtimes = {name: load_runtime(name) for name in sorted(set(names.values()))}
    results = []
    for artifact in artifacts:
        result = verify_artifact(artifact, runtimes[names[artifact.cell]], threads=threads)
        results.append(result)
        if after_each is not None:
            after_each(result)
    return results


def verify_artifact(artifact: Artifact, runtime: Runtime, *, threads: int = 1) -> Verification:
    """Runs the reference inputs of an artifact and compares the outputs with the level's.

    A model that the runtime refuses, or fails to run, has failed: it is not the level here.

    Raises:
        FormatError: the reference is not one.
    """
    reference = read_reference(artifact)
    try:
        session = runtime.open(artifact.model_path, threads=threads)
        cases = [session.run(reference.case(index)) for index in range(reference.cases)]
    except (NestedgeError, ValueError) as error:
        worst = (math.inf, "", str(error))
    else:
        errors = [
            _output_error(info, cases, reference.outputs[info.name]) for info in artifact.outputs
        ]
        worst = max(errors, key=lambda error: error[0])
    max_error, output, reason = worst
    passed = max_error <= artifact.tolerance
    if not passed and not reason:
        reason = f"error {max_error:.3g} is above {artifact.tolerance:.3g}"
    return Verification(
        cell=artifact.cell,
        model_sha256=artifact.files[artifact.model].sha256,
        runtime=runtime.name,
        runtime_version=runtime.version(),
        device=describe_device(),
        max_error=max_error,
        tolerance=artifact.tolerance,
        passed=passed,
        output=output,
        reason=reason,
        cases=reference.cases,
        note=ENGINE_UNBUILT if artifact.is_engine_unbuilt else "",
    )


def load_verifications(folder: Path) -> list[Verification]:
    """The results kept in a build folder, by cell and runtime; none where there is no file.

    Raises:
        FormatError: the file is not one of verifications; the message names the field.
    """
    path = folder / VERIFICATIONS_FILE
    if not path.is_file():
        return []
    (verifications,) = read_json(path).versioned(FORMAT, "verifications")
    return sorted(map(Verification.from_json, verifications.elements()), key=_key)


def save_verifications(folder: Path, verifications: Iterable[Verification]) -> Path:
    """Adds results to those in a build folder; the file.

    One of the same cell and runtime is replaced, all others stay.

    Raises:
        FormatError: the file that is there is not one of verifications.
        OSError: it cannot be written; the old one stays.
    """
    kept = {_key(found): found for found in load_verifications(folder)}
    kept |= {_key(found): found for found in verifications}
    path = folder / VERIFICATIONS_FILE
    records = [kept[key].to_json() for key in sorted(kept)]
    write_whole(path, json_bytes({"format": FORMAT, "verifications": records}))
    return path


def deciding(artifact: Artifact, verifications: Sequence[Verification]) -> list[Verification]:
    """The results that decide whether an artifact may be used, of those of this very artifact.

    The runtime that it was built to be checked by decides. Where that never ran it, as on a device
    too old for it, those decide that did.
    """
    own = [found for found in verifications if found.runtime == artifact.checked_by]
    return own or list(verifications)


def relative_error(found: Array, expected: Array) -> float:
    """max|found - expected| / max|expected|, and inf if a NaN is involved.

    Infinities count as equal to themselves, and as infinitely far from all else. Where all expected
    values are zero the error is absolute.

    >>> relative_error(np.array([1.0, 4.4]), np.array([1.0, 4.0])).__round__(3)
    0.1
    >>> relative_error(np.array([np.nan]), np.array([1.0]))
    inf
    """
    a, b = found.astype(np.float64), expected.astype(np.float64)
    if np.isnan(a).any() or np.isnan(b).any():
        return math.inf
    differing = a != b
    if not differing.any():
        return 0.0
    largest = np.abs(a[differing] - b[differing]).max()
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    return float(largest / scale) if scale > 0 else float(largest)


def _readable(artifacts: Sequence[Artifact], runtime: Runtime) -> list[Artifact]:
    """The artifacts whose model files `runtime` opens."""
    read = reads(runtime)
    found = [artifact for artifact in artifacts if artifact.checked_by == read]
    if not found:
        known = sorted({artifact.checked_by for artifact in artifacts})
        raise UsageError(
            f"runtime {runtime.name!r} opens artifacts of {read!r}; these are of {known}"
        )
    return found


def _key(found: Verification) -> tuple[str, str]:
    return found.cell, found.runtime


def _output_error(
    info: TensorInfo, cases: Sequence[Mapping[str, Array]], expected: Array
) -> tuple[float, str, str]:
    """The error of one output over all cases, its name, and what is wrong beyond a large error."""
    arrays = [case[info.name] for case in cases if info.name in case]
    if len(arrays) < len(cases):
        given = sorted({name for case in cases for name in case})
        return math.inf, info.name, f"output {info.name!r} is missing; found {given}"
    for array in arrays:
        if array.shape != info.shape or array.dtype.name != info.dtype:
            reason = (
                f"output {info.name!r}: expected shape {info.shape} and dtype {info.dtype}, "
                f"found {array.shape} and {array.dtype.name}"
            )
            return math.inf, info.name, reason
    found = np.stack(arrays)
    if np.isnan(found.astype(np.float64)).any():
        return math.inf, info.name, f"output {info.name!r} is not a number"
    return relative_error(found, expected), info.name, ""
