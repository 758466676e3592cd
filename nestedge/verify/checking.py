"""Runs artifacts on their reference inputs and compares what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, check_integrity, find_artifacts, read_reference
from nestedge.errors import NestedgeError, PlacementError
from nestedge.plugins import Array, Runtime, TensorInfo, load_runtime, readable
from nestedge.precisions import PRECISIONS
from nestedge.profiling.labelled import LabelledData
from nestedge.profiling.measurement import describe_device
from nestedge.verify.closeness import Closeness, measure_closeness, relative_error, worst_of
from nestedge.verify.data import check_on_data
from nestedge.verify.localisation import Network, localise
from nestedge.verify.record import ENGINE_UNBUILT, Verification


def verify_folder(
    folder: Path,
    *,
    runtime: str | None = None,
    provider: str | None = None,
    threads: int = 1,
    data: LabelledData | None = None,
    after_each: Callable[[Verification], None] | None = None,
) -> list[Verification]:
    """Verifies the artifacts in a folder, by cell. All hashes are checked before anything runs.

    Args:
        folder: as `nestedge.artifact.find_artifacts` takes it.
        runtime: name of a runtime plug-in: it runs the artifacts whose model it opens, and no
            others are verified; without it all are, each by the plug-in it was built to be
            checked by.
        provider: as in `nestedge.plugins.load_runtime`.
        threads: CPU threads of the runtimes.
        data: a data set to answer too, beside the same level in single precision.
        after_each: is called with each result, to show progress.

    Raises:
        IntegrityError: a file is missing or changed.
        MissingDependencyError: the runtime of an artifact is not installed.
        UsageError: there is no such runtime, it opens none of the artifacts, it has no such
            provider, or an artifact is not a classifier of batches of one, where a data set is
            given.
        PlacementError: the provider cannot be started.
        ValueError: the data set does not fit an artifact.
    """
    artifacts = find_artifacts(folder)
    if runtime is not None:
        artifacts = readable(artifacts, load_runtime(runtime))
    for artifact in artifacts:
        check_integrity(artifact)
    names = {artifact.cell: runtime or artifact.checked_by for artifact in artifacts}
    loaded = {name: load_runtime(name, provider=provider) for name in sorted(set(names.values()))}
    runtimes = {cell: loaded[name] for cell, name in names.items()}
    results = []
    for artifact in artifacts:
        result = verify_artifact(artifact, runtimes[artifact.cell], threads=threads)
        results.append(result)
        if after_each is not None:
            after_each(result)
    if data is None:
        return results
    # A model that cannot run, or gives something else, has no answers.
    running = {result.cell for result in results if result.closeness is not None}
    able = [artifact for artifact in artifacts if artifact.cell in running]
    checks = check_on_data(able, runtimes, data=data, threads=threads)
    return [replace(result, data=checks.get(result.cell)) for result in results]


def localise_failures(
    folder: Path,
    results: Sequence[Verification],
    *,
    provider: str | None = None,
    threads: int = 1,
    all_cells: bool = False,
    network: Network | None = None,
) -> list[Verification]:
    """The results, those that failed with the operator at which their error arises.

    Args:
        folder: that `results` are of.
        results: of `verify_folder`.
        provider: that `verify_folder` was given.
        threads: CPU threads of the runtimes.
        all_cells: localises the worst operator of what passed too.
        network: runs a level by torch, for what has no cell to be compared with.
    """
    artifacts = {artifact.cell: artifact for artifact in find_artifacts(folder)}
    return [
        replace(
            result,
            localisation=localise(
                artifacts[result.cell],
                load_runtime(result.runtime, provider=provider),
                network=network,
                threads=threads,
            ),
        )
        if all_cells or not result.passed
        else result
        for result in results
    ]


def verify_artifact(artifact: Artifact, runtime: Runtime, *, threads: int = 1) -> Verification:
    """Runs the reference inputs of an artifact and compares the outputs with the level's.

    A model that the runtime refuses, or fails to run, has failed: it is not the level here.

    Raises:
        FormatError: the reference is not one.
        PlacementError: the runtime cannot start the provider that it was asked for.
    """
    reference = read_reference(artifact)
    try:
        session = runtime.open(artifact.model_path, threads=threads)
        cases = [session.run(reference.case(index)) for index in range(reference.cases)]
    except PlacementError:
        # A driver that is missing here says nothing about the artifact.
        raise
    except (NestedgeError, ValueError) as error:
        worst, closeness = _Worst(math.inf, "", str(error)), None
    else:
        found = [_compared(info, cases, reference.outputs[info.name]) for info in artifact.outputs]
        worst = max((item for item, _ in found), key=lambda item: item.error)
        closeness = worst_of(figures for _, figures in found)
    passed = worst.error <= artifact.tolerance
    only_its_onnx = artifact.is_engine_unbuilt and runtime.name != artifact.runtime
    return Verification(
        cell=artifact.cell,
        model_sha256=artifact.files[artifact.model].sha256,
        runtime=runtime.name,
        runtime_version=runtime.version(),
        device=describe_device(),
        max_error=worst.error,
        tolerance=artifact.tolerance,
        passed=passed,
        output=worst.output,
        reason="" if passed else worst.reason or _too_large(worst.error, artifact),
        cases=reference.cases,
        note=ENGINE_UNBUILT if only_its_onnx else "",
        closeness=closeness,
    )


def tolerance_reason(artifact: Artifact) -> str:
    """Why the error of an artifact may be as large as its tolerance, in words; "" if unknown."""
    precision = PRECISIONS.get(artifact.precision)
    # One built by another version may have a tolerance of its own.
    if precision is None or precision.tolerance != artifact.tolerance:
        return ""
    return precision.reason


@dataclass(frozen=True)
class _Worst:
    """The error of an output, its name, and what is wrong beyond a large error."""

    error: float
    output: str
    reason: str = ""


def _too_large(error: float, artifact: Artifact) -> str:
    why = tolerance_reason(artifact)
    text = f"error {error:.3g} is above {artifact.tolerance:.3g}"
    return f"{text} ({artifact.precision}: {why})" if why else text


def _compared(
    info: TensorInfo, cases: Sequence[Mapping[str, Array]], expected: Array
) -> tuple[_Worst, Closeness | None]:
    """The error of one output over all cases, and how close it is."""
    arrays = [case[info.name] for case in cases if info.name in case]
    if len(arrays) < len(cases):
        given = sorted({name for case in cases for name in case})
        reason = f"output {info.name!r} is missing; found {given}"
        return _Worst(math.inf, info.name, reason), None
    for array in arrays:
        if array.shape != info.shape or array.dtype.name != info.dtype:
            reason = (
                f"output {info.name!r}: expected shape {info.shape} and dtype {info.dtype}, "
                f"found {array.shape} and {array.dtype.name}"
            )
            return _Worst(math.inf, info.name, reason), None
    found = np.stack(arrays)
    if np.isnan(found.astype(np.float64)).any():
        return _Worst(math.inf, info.name, f"output {info.name!r} is not a number"), None
    error = relative_error(found, expected)
    return _Worst(error, info.name), measure_closeness(found, expected)
