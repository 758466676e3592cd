"""Measures artifacts on the device that this runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nestedge.artifact import Artifact, check_integrity, find_artifacts, read_reference
from nestedge.errors import UsageError
from nestedge.plugins import Array, Runtime, Session, load_runtime, readable
from nestedge.profiling.labelled import LabelledData
from nestedge.profiling.measurement import (
    Measurement,
    describe_device,
    load_measurements,
    save_measurements,
)
from nestedge.profiling.statistics import Summary, proportion_interval, summarize
from nestedge.profiling.timing import WarmUp, measure_interleaved

__all__ = [
    "Accuracy",
    "Measurement",
    "accuracy_of",
    "load_measurements",
    "measure_accuracies",
    "measure_accuracy",
    "predictions",
    "profile_folder",
    "save_measurements",
]

_LOADS = 5


def profile_folder(
    folder: Path,
    *,
    rounds: int,
    seed: int,
    runtime: str | None = None,
    provider: str | None = None,
    threads: int = 1,
    after_round: Callable[[], None] | None = None,
) -> list[Measurement]:
    """Load time and latency of the artifacts in a folder, by cell, on this device.

    All artifacts are in memory together, because their runs are interleaved. Those whose engine
    the device still has to build are left out: what another runtime takes for their model says
    nothing about the engine.

    Args:
        folder: as `nestedge.artifact.find_artifacts` takes it.
        rounds: runs of each artifact after its warm-up.
        seed: of the order of the runs, and of the intervals.
        runtime: name of a runtime plug-in: it runs the artifacts whose model it opens, and no
            others are measured; without it all are, each by the plug-in that it is for.
        provider: as in `nestedge.plugins.load_runtime`.
        threads: CPU threads of the runtimes.
        after_round: is called between the rounds of runs, to show progress.

    Raises:
        IntegrityError: a file is missing or changed.
        MissingDependencyError: the runtime of an artifact is not installed.
        UsageError: there is no such runtime, it opens none of the artifacts, or has no such
            provider.
        FormatError: a runtime does not accept its model.
    """
    chosen = _chosen(folder, runtime)
    artifacts = [found for found in chosen if not found.is_engine_unbuilt]
    if not artifacts:
        return []
    runtimes = _loaded({a.cell: runtime or a.runtime for a in artifacts}, provider=provider)
    opens = {a.cell: _opening(a, runtimes[a.cell], threads) for a in artifacts}
    rng = np.random.default_rng(seed)
    # Only the first load reads the disk; waiting for a stable time is of no use here.
    once = WarmUp(at_most_calls=1)
    loads = measure_interleaved(opens, rounds=_LOADS, rng=rng, warm_up=once)
    runs = {a.cell: _running(a, opens[a.cell]()) for a in artifacts}
    latencies = measure_interleaved(runs, rounds=rounds, rng=rng, after_round=after_round)
    return [
        _timing(
            artifact,
            summarize(times[artifact.cell], rng=rng),
            quantity=quantity,
            runtime_version=runtimes[artifact.cell].version(),
            threads=threads,
        )
        for artifact in artifacts
        for quantity, times in (("latency_ms", latencies), ("load_ms", loads))
    ]


def measure_accuracies(
    folder: Path,
    *,
    inputs: Array,
    labels: Array,
    runtime: str | None = None,
    provider: str | None = None,
    threads: int = 1,
) -> list[Measurement]:
    """The accuracy of every artifact in a folder, by cell, each in the runtime that checks it.

    An engine that only the device can build computes what its model says, up to rounding: the
    accuracy of one that is not built yet is that of the model, and names the runtime that ran it.

    Args:
        folder: as `nestedge.artifact.find_artifacts` takes it.
        inputs: as `measure_accuracy` takes them.
        labels: as `measure_accuracy` takes them.
        runtime: as `profile_folder` takes it.
        provider: as `profile_folder` takes it.
        threads: CPU threads of the runtimes.

    Raises:
        IntegrityError: a file is missing or changed.
        MissingDependencyError: the runtime of an artifact is not installed.
        UsageError: as of `profile_folder`, or an artifact is not a classifier of batches of one.
        ValueError: inputs and labels do not belong together, or do not fit an artifact.
    """
    artifacts = _chosen(folder, runtime)
    runtimes = _loaded({a.cell: runtime or a.checked_by for a in artifacts}, provider=provider)
    return [
        measure_accuracy(
            artifact,
            runtimes[artifact.cell],
            inputs=inputs,
            labels=labels,
            threads=threads,
        )
        for artifact in artifacts
    ]


def measure_accuracy(
    artifact: Artifact,
    runtime: Runtime,
    *,
    inputs: Array,
    labels: Array,
    threads: int = 1,
) -> Measurement:
    """The share of correctly classified inputs, in percent, with its 95 % Wilson interval.

    Args:
        artifact: of a classifier: one input, and one output of one score per class.
        runtime: that runs it.
        inputs: shape (cases, ...): uint8 images, which the artifact's preprocessing turns into
            inputs, or what the input takes, with or without its batch axis of one.
        labels: index of the right class, shape (cases,).
        threads: CPU threads of the runtime.

    Raises:
        UsageError: the artifact is not a classifier of batches of one.
        ValueError: inputs and labels do not belong together, or do not fit the artifact.
    """
    data = LabelledData(inputs, labels)
    share = accuracy_of(predictions(artifact, runtime, data=data, threads=threads), labels)
    return Measurement(
        cell=artifact.cell,
        model_sha256=artifact.files[artifact.model].sha256,
        quantity="accuracy_percent",
        value=share.value,
        p90=None,
        low=share.low,
        high=share.high,
        samples=len(labels),
        origin="measured",
        device=describe_device(),
        runtime_version=runtime.version(),
        threads=threads,
        data_sha256=data.sha256,
    )


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % Wilson interval, all in percent."""

    value: float
    low: float
    high: float


def accuracy_of(answers: Array, labels: Array) -> Accuracy:
    """The accuracy of answers.

    Args:
        answers: as `predictions` gives them.
        labels: index of the right class, shape (cases,).
    """
    correct = int((answers == labels).sum())
    low, high = proportion_interval(correct, len(labels))
    return Accuracy(100 * correct / len(labels), 100 * low, 100 * high)


def predictions(
    artifact: Artifact, runtime: Runtime, *, data: LabelledData, threads: int = 1
) -> npt.NDArray[np.int64]:
    """The class that an artifact gives for every input of a data set; -1 where it gives none.

    Raises:
        UsageError: the artifact is not a classifier of batches of one.
        ValueError: inputs and labels do not belong together, or do not fit the artifact.
    """
    check_labels(data.labels, data.inputs, classes=_classes(artifact))
    session = runtime.open(artifact.model_path, threads=threads)
    output = artifact.outputs[0].name
    answers = np.full(len(data.labels), -1, np.int64)
    for index, array in enumerate(data.inputs):
        scores = session.run(artifact.batch(array))[output].reshape(-1)
        # A NaN would win argmax: it is no answer, let alone a right one.
        if not np.isnan(scores).any():
            answers[index] = scores.argmax()
    return answers


def _chosen(folder: Path, runtime: str | None) -> list[Artifact]:
    """The artifacts in a folder that are measured, their hashes checked."""
    artifacts = find_artifacts(folder)
    if runtime is not None:
        artifacts = readable(artifacts, load_runtime(runtime))
    for artifact in artifacts:
        check_integrity(artifact)
    return artifacts


def _loaded(names: Mapping[str, str], *, provider: str | None) -> dict[str, Runtime]:
    """The runtime of every cell, each loaded once."""
    loaded = {name: load_runtime(name, provider=provider) for name in sorted(set(names.values()))}
    return {cell: loaded[name] for cell, name in names.items()}


def _timing(
    artifact: Artifact, summary: Summary, *, quantity: str, runtime_version: str, threads: int
) -> Measurement:
    return Measurement(
        cell=artifact.cell,
        model_sha256=artifact.files[artifact.model].sha256,
        quantity=quantity,
        value=summary.p50,
        p90=summary.p90,
        low=summary.low,
        high=summary.high,
        samples=summary.samples,
        origin="measured",
        device=describe_device(),
        runtime_version=runtime_version,
        threads=threads,
    )


def _opening(artifact: Artifact, runtime: Runtime, threads: int) -> Callable[[], Session]:
    return lambda: runtime.open(artifact.model_path, threads=threads)


def _running(artifact: Artifact, session: Session) -> Callable[[], object]:
    inputs = read_reference(artifact).case(0)
    return lambda: session.run(inputs)


def _classes(artifact: Artifact) -> int:
    shapes = [info.shape for info in artifact.outputs]
    if len(artifact.inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != 1:
        raise UsageError(
            f"{artifact.cell}: accuracy needs one input and one output of shape (1, classes), "
            f"found {len(artifact.inputs)} inputs and outputs of shapes {shapes}"
        )
    return shapes[0][1]


def check_labels(labels: Array, inputs: Array, *, classes: int) -> None:
    """Refuses labels that are not those of some inputs, or of classes.

    Raises:
        ValueError: saying what was expected.
    """
    if inputs.ndim == 0 or labels.shape != inputs.shape[:1] or len(inputs) == 0:
        raise ValueError(
            f"expected inputs of shape (cases, ...) and labels of shape (cases,), "
            f"got {inputs.shape} and {labels.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype.name}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be 0..{classes - 1}, one of {classes} classes, "
            f"got {labels.min()}..{labels.max()}"
        )
