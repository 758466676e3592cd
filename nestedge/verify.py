"""Is an artifact still its level? numpy and one runtime, so that it runs on a device too.

Every artifact carries inputs and what the level, run by torch, gave for them. Its own runtime runs
them again here, and the outputs are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, check_integrity, find_artifacts, read_reference
from nestedge.errors import NestedgeError
from nestedge.plugins import Array, Runtime, TensorInfo, load_runtime


@dataclass(frozen=True)
class Verification:
    """What the comparison of one artifact with its level gave.

    Attributes:
        cell: the artifact.
        max_error: of the worst output, max|a - b| / max|b| over all cases; inf where an output is
            missing, misshaped or not a number.
        tolerance: the artifact's.
        passed: whether the error is within the tolerance.
        output: name of the worst output, or "" where nothing ran.
        reason: why it failed, or "".
        cases: how many reference inputs were run.
        runtime_version: what ran it.
    """

    cell: str
    max_error: float
    tolerance: float
    passed: bool
    output: str
    reason: str
    cases: int
    runtime_version: str


def verify_folder(
    folder: Path, *, threads: int = 1, after_each: Callable[[Verification], None] | None = None
) -> list[Verification]:
    """Verifies every artifact in a folder, by cell. All hashes are checked before anything runs.

    Args:
        folder: as `nestedge.artifact.find_artifacts` takes it.
        threads: CPU threads of the runtimes.
        after_each: is called with each result, to show progress.

    Raises:
        IntegrityError: a file is missing or changed.
        MissingDependencyError: the runtime of an artifact is not installed.
    """
    artifacts = find_artifacts(folder)
    for artifact in artifacts:
        check_integrity(artifact)
    runtimes = {name: load_runtime(name) for name in sorted({a.runtime for a in artifacts})}
    results = []
    for artifact in artifacts:
        result = verify_artifact(artifact, runtimes[artifact.runtime], threads=threads)
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
        max_error=max_error,
        tolerance=artifact.tolerance,
        passed=passed,
        output=output,
        reason=reason,
        cases=reference.cases,
        runtime_version=runtime.version(),
    )


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
