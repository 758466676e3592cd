"""Asks runtimes where the operators of artifacts run, and refuses what runs too much elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nestedge.artifact import Artifact, check_integrity, find_artifacts
from nestedge.errors import PlacementError, UsageError
from nestedge.placement.description import Operator, Placement, counted
from nestedge.placement.logs import read_log
from nestedge.plugins import Runtime, load_runtime, reads

REMEDY = (
    "build them in another precision, replace these operators, or ask for less: see "
    "docs/placement.md"
)


class PlacingRuntime(Runtime, Protocol):
    """A runtime plug-in that can say where it runs the operators of a model file."""

    def placement(
        self, path: Path, *, accelerator: str | None = None, threads: int = 1
    ) -> Placement:
        """Where this runtime, on this machine, runs each operator of a model file.

        Args:
            path: of the file.
            accelerator: the delegate or provider that is asked for; without one, that which
                `open` uses.
            threads: CPU threads of the runtime.

        Raises:
            UsageError: there is no such file, or no such accelerator here.
            FormatError: the framework does not accept the file.
        """
        ...

    def operators(self, path: Path) -> tuple[Operator, ...]:
        """The operators of a model file as the file has them, for the logs of other machines.

        Raises:
            UsageError: there is no such file.
            FormatError: the framework does not accept the file.
        """
        ...


@dataclass(frozen=True)
class Placements:
    """Where the operators of the artifacts in a folder run.

    Attributes:
        found: the placements, by cell.
        untold: why there is none, by cell.
    """

    found: Mapping[str, Placement]
    untold: Mapping[str, str]


def place_folder(
    folder: Path, *, runtime: str | None = None, accelerator: str | None = None, threads: int = 1
) -> Placements:
    """Asks for each artifact in a folder the runtime that it was built for, on this machine.

    Args:
        folder: as `nestedge.artifact.find_artifacts` takes it.
        runtime: name of a runtime plug-in: it places the artifacts whose model it opens, and no
            others are placed; without it all are.
        accelerator: the delegate or provider that is asked for; without one, that which each
            runtime uses.
        threads: CPU threads of the runtimes.

    Raises:
        IntegrityError: a file is missing or changed.
        MissingDependencyError: the runtime of an artifact is not installed.
        UsageError: there is no such runtime, it opens none of the artifacts, or it has no such
            accelerator here.
    """
    artifacts = find_artifacts(folder)
    if runtime is not None:
        read = reads(load_runtime(runtime))
        known = sorted({artifact.checked_by for artifact in artifacts})
        artifacts = [artifact for artifact in artifacts if artifact.checked_by == read]
        if not artifacts:
            raise UsageError(
                f"runtime {runtime!r} opens artifacts of {read!r}; these are of {known}"
            )
    for artifact in artifacts:
        check_integrity(artifact)
    found: dict[str, Placement] = {}
    untold: dict[str, str] = {}
    for artifact in artifacts:
        plugin = load_runtime(runtime or artifact.checked_by)
        reason = _silence(artifact, plugin)
        if reason:
            untold[artifact.cell] = reason
        else:
            found[artifact.cell] = placement_of(
                artifact, plugin, accelerator=accelerator, threads=threads
            )
    return Placements(found, untold)


def placement_of(
    artifact: Artifact, runtime: Runtime, *, accelerator: str | None = None, threads: int = 1
) -> Placement:
    """Where a runtime, on this machine, runs the operators of an artifact.

    Args:
        artifact: that it opens.
        runtime: as in `nestedge.plugins.load_runtime`.
        accelerator: the delegate or provider that is asked for; without one, that which the
            runtime uses.
        threads: CPU threads of the runtime.

    Raises:
        UsageError: nobody here can say: the runtime has no such method or no such accelerator, or
            the artifact's engine is yet to be built.
        FormatError: the framework does not accept the file.
    """
    reason = _silence(artifact, runtime)
    if reason:
        raise UsageError(f"{artifact.cell}: {reason}")
    return _placing(runtime).placement(
        artifact.model_path, accelerator=accelerator, threads=threads
    )


def placement_from_log(
    artifact: Artifact, runtime: Runtime, log: Path, *, accelerator: str | None = None
) -> Placement:
    """Where the operators of an artifact ran on another machine, by what a tool printed there.

    Args:
        artifact: that was run, or whose engine was built, there.
        runtime: that opens the artifact here; it says what operators there are.
        log: what trtexec, benchmark_model, logcat or onnxruntime printed.
        accelerator: which of several in the log is meant.

    Raises:
        UsageError: there is no such file, or the accelerator is not in the log.
        FormatError: it is no log of these tools, is truncated, or is of another model.
    """
    if not log.is_file():
        raise UsageError(f"{log}: no such file")
    operators = _placing(runtime).operators(artifact.model_path) if _can_place(runtime) else ()
    text = log.read_bytes().decode(errors="replace")
    return read_log(text, operators, source=str(log), accelerator=accelerator)


def check_share(placements: Placements, share: float) -> None:
    """Refuses artifacts of which too little runs on their accelerator, or nobody knows how much.

    Args:
        placements: as `place_folder` gives them.
        share: of the multiply-accumulates, or of the operators where those are not known; from 0
            to 1.

    Raises:
        ValueError: `share` is not in [0, 1].
        PlacementError: naming the cells, what was found, and the operators that run elsewhere.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    reasons = [
        f"{cell}: {describe_share(placement)}, elsewhere {counted(placement.elsewhere)}"
        for cell, placement in placements.found.items()
        if placement.share < share
    ]
    for reason in dict.fromkeys(placements.untold.values()):
        cells = [cell for cell, found in placements.untold.items() if found == reason]
        reasons.append(f"{', '.join(cells)}: {reason}")
    if reasons:
        raise PlacementError(
            f"not everything has {share:.1%} on its accelerator: {'; '.join(reasons)}; {REMEDY}"
        )


def describe_share(placement: Placement) -> str:
    """In words, how much runs on the accelerator.

    >>> describe_share(Placement("XNNPACK", (), 0, "a test"))
    '100.0% of operators on XNNPACK'
    """
    return f"{placement.share:.1%} of {placement.unit} on {placement.accelerator}"


def _silence(artifact: Artifact, runtime: Runtime) -> str:
    """Why a runtime cannot say where the operators of an artifact run; empty where it can."""
    if artifact.is_engine_unbuilt and runtime.name == artifact.checked_by:
        return "its engine is built on the device: give the log of that build by --log"
    if not _can_place(runtime):
        return f"runtime {runtime.name!r} does not say where its operators run"
    return ""


def _can_place(runtime: Runtime) -> bool:
    return hasattr(runtime, "placement") and hasattr(runtime, "operators")


def _placing(runtime: Runtime) -> PlacingRuntime:
    placing: PlacingRuntime = runtime  # type: ignore[assignment]
    return placing
