"""NestedRuntime: what runs on a device. numpy and one runtime.

It opens what 'nestedge fetch' put there, or a build folder, runs one level of it, and switches to
another one while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestedge.artifact import Artifact, check_integrity, find_artifacts, read_artifact
from nestedge.errors import MissingDependencyError, UsageError, VerificationError, did_you_mean
from nestedge.matrix import MATRIX_FILE, read_matrix
from nestedge.packaging.filtering import default_cell
from nestedge.packaging.shipment import SHIPMENT_FILE, read_shipment, read_shipped
from nestedge.plugins import Array, Runtime, Session, load_runtime, reads
from nestedge.verify import verify_artifact

DOCUMENTATION = "docs/shipping.md"


@dataclass(frozen=True)
class Label:
    """A class that a network saw.

    Attributes:
        label: name of the class.
        score: as the network gives it: a logit, or a probability where it ends in a softmax.
    """

    label: str
    score: float


@dataclass(frozen=True)
class _Opened:
    """An artifact that is ready to run, and by what."""

    artifact: Artifact
    runtime: Runtime
    session: Session


class NestedRuntime:
    """A nested network on a device: one level of it at a time.

    Several threads may call it: runs wait for each other, and `switch` opens the new level while
    runs of the old one go on.

    Args:
        folder: that was fetched, or of a build, or of one artifact.
        level: to start with; without one, that of the default cell, which shipment.json says, or
            in a build folder the level with the most parameters.
        runtime: name of the runtime plug-in that is to run everything; without one, each cell is
            run by the one that it was built for, of those that are installed.
        precision: of all cells that are to be run; without one, that of the default cell where the
            level has it.
        provider: as in `nestedge.plugins.load_runtime`.
        threads: CPU threads of the runtime.

    Raises:
        UsageError: there is nothing of that kind in the folder, or its runtime has no such
            provider.
        IntegrityError: a file is missing or changed.
        MissingDependencyError: no runtime that could run it is installed.
        VerificationError: the runtime is another than the cell was built for, or a provider was
            asked for, and it does not give what the level gives.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        level: str | None = None,
        runtime: str | None = None,
        precision: str | None = None,
        provider: str | None = None,
        threads: int = 1,
    ) -> None:
        artifacts, default = _read(Path(folder))
        self._artifacts = artifacts
        self._runtime = runtime
        self._precision = precision
        self._provider = provider
        self._threads = threads
        self._verified: set[str] = set()
        self._running = threading.Lock()
        self._switching = threading.Lock()
        self._opened = self._open(default.level if level is None else level, like=default)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that are there, that with the fewest parameters first."""
        ordered = sorted(self._artifacts, key=lambda artifact: artifact.parameters)
        return tuple(dict.fromkeys(artifact.level for artifact in ordered))

    @property
    def artifact(self) -> Artifact:
        """What `run` runs now: its inputs, outputs, labels and preprocessing."""
        return self._opened.artifact

    @property
    def level(self) -> str:
        """The level that `run` runs now."""
        return self.artifact.level

    @property
    def cell(self) -> str:
        """The cell that `run` runs now, as in "small/tflite-int8"."""
        return self.artifact.cell

    def switch(self, level: str) -> None:
        """Runs another level from now on, in the same precision and by the same runtime if it can.

        The old level runs until the new one is open, and stays where that fails. A run that has
        begun ends in the level in which it began.

        Raises:
            UsageError: there is no such level, or no cell of it that may be run.
            IntegrityError: a file is missing or changed.
            MissingDependencyError: no runtime that could run it is installed.
            VerificationError: as in the constructor.
        """
        with self._switching:
            if level == self.level:
                return
            self._opened = self._open(level, like=self.artifact)

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """The outputs by name.

        Args:
            inputs: by name; or the only one, as `Artifact.batch` takes it: an image of uint8 is
                preprocessed where the artifact says how.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            UsageError: there are several inputs, and they have no names.
        """
        return self._run(inputs)[1]

    def classify(self, image: Array, *, top: int = 5) -> list[Label]:
        """The classes with the highest scores, best first.

        Args:
            image: as `run` takes it.
            top: how many at most.

        Raises:
            ValueError: the image is of another shape or dtype, or `top` is less than 1.
            UsageError: the network has no labels.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        artifact, outputs = self._run(image)
        labels = best_labels(artifact, outputs, top=top)
        if not labels:
            raise UsageError(
                f"{artifact.cell}: has no labels, or no single output with their number"
            )
        return labels

    def _run(self, inputs: Mapping[str, Array] | Array) -> tuple[Artifact, dict[str, Array]]:
        with self._running:
            artifact, session = self._opened.artifact, self._opened.session
            named = inputs if isinstance(inputs, Mapping) else artifact.batch(inputs)
            return artifact, session.run(named)

    def _open(self, level: str, *, like: Artifact) -> _Opened:
        """The cell of a level that is most like another artifact, of those that can be run."""
        artifact, runtime = self._choose(level, like)
        check_integrity(artifact)
        # Neither another runtime nor a provider that was asked for is what the build verified.
        is_other = runtime.name != artifact.runtime or self._provider is not None
        if is_other and artifact.cell not in self._verified:
            result = verify_artifact(artifact, runtime, threads=self._threads)
            if not result.passed:
                raise VerificationError(
                    f"{artifact.cell}: runtime {runtime.name!r}, {runtime.version()}, does not "
                    f"give what the level gives: {result.reason}"
                )
            self._verified.add(artifact.cell)
        session = runtime.open(artifact.model_path, threads=self._threads)
        return _Opened(artifact, runtime, session)

    def _choose(self, level: str, like: Artifact) -> tuple[Artifact, Runtime]:
        if level not in self.levels:
            suggestion = did_you_mean(level, self.levels)
            raise UsageError(f"no level {level!r}; there are {list(self.levels)}{suggestion}")
        cells = [artifact for artifact in self._artifacts if artifact.level == level]
        usable = _usable(cells, runtime=self._runtime, precision=self._precision)
        # A stable sort: among equals the order of the shipment decides.
        usable.sort(key=lambda a: (a.runtime != like.runtime, a.precision != like.precision))
        missing: dict[str, MissingDependencyError] = {}
        for artifact in usable:
            name = self._runtime or artifact.runtime
            if name in missing:
                continue
            try:
                return artifact, load_runtime(name, provider=self._provider)
            except MissingDependencyError as error:
                missing[name] = error
        raise MissingDependencyError("; or ".join(map(str, missing.values())))


def best_labels(artifact: Artifact, outputs: Mapping[str, Array], *, top: int = 5) -> list[Label]:
    """The labels with the highest scores, best first.

    None of them where the artifact has no labels, or not one output with a score for each.
    """
    labels = artifact.labels or ()
    fitting = [array for array in outputs.values() if array.size == len(labels)]
    if not labels or len(fitting) != 1:
        return []
    scores = fitting[0].astype(np.float64).reshape(-1)
    best = np.argsort(-scores, kind="stable")[:top]
    return [Label(labels[index], float(scores[index])) for index in best]


def _read(folder: Path) -> tuple[list[Artifact], Artifact]:
    """The artifacts in a folder, in the order of preference, and the default one."""
    if (folder / SHIPMENT_FILE).is_file():
        artifacts, default = read_shipped(folder), read_shipment(folder).default
    else:
        found = _read_build(folder)
        # The more precise first: it needs no judgement of ours.
        artifacts = sorted(found, key=lambda artifact: artifact.tolerance)
        default = default_cell(artifacts)
    return artifacts, {artifact.cell: artifact for artifact in artifacts}[default]


def _read_build(folder: Path) -> list[Artifact]:
    """The artifacts in a build folder, or below it."""
    if not folder.is_dir():
        # The error says which is meant.
        return [read_artifact(folder)]
    artifacts = find_artifacts(folder)
    if not (folder / MATRIX_FILE).is_file():
        return artifacts
    built = {name for name, cell in read_matrix(folder).cells.items() if cell.state == "built"}
    # What an older network left is of other weights.
    found = [artifact for artifact in artifacts if artifact.cell in built]
    if not found:
        raise UsageError(
            f"{folder}: holds no artifact of its last build, only older ones: build again"
        )
    return found


def _usable(
    cells: Sequence[Artifact], *, runtime: str | None, precision: str | None
) -> list[Artifact]:
    """The cells of one level that may be run.

    Raises:
        UsageError: there are none; the message says why.
    """
    names = [artifact.cell for artifact in cells]
    where = f"level {cells[0].level!r}"
    usable = [a for a in cells if precision in (None, a.precision)]
    if not usable:
        known = sorted({artifact.precision for artifact in cells})
        raise UsageError(
            f"{where}: no precision {precision!r}; there are {names}"
            f"{did_you_mean(precision or '', known)}"
        )
    ready = [artifact for artifact in usable if not artifact.is_engine_unbuilt]
    unbuilt = [artifact for artifact in usable if artifact.is_engine_unbuilt]
    if runtime in {artifact.runtime for artifact in unbuilt} or not ready:
        raise UsageError(
            f"{unbuilt[0].cell}: NestedRuntime does not open it; you build its engine on the "
            f"device and run that: see {DOCUMENTATION}"
        )
    if runtime is None:
        return ready
    files = reads(load_runtime(runtime))
    found = [artifact for artifact in ready if artifact.runtime == files]
    if not found:
        raise UsageError(f"{where}: runtime {runtime!r} opens no cell of it; there are {names}")
    return found
