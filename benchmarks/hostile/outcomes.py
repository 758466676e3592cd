"""What becomes of a network: every cell built and verified, or a reason code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.hostile.networks import PRECISIONS, RUNTIMES, Hostile
from nestedge.artifact import read_artifact
from nestedge.building import Request, build
from nestedge.devices.profile import DeviceProfile, Target
from nestedge.diagnosis import diagnose
from nestedge.errors import CaptureError, NestedgeError
from nestedge.matrix import Cell
from nestedge.nested import nest
from nestedge.plugins import load_runtime
from nestedge.program.lines import without_folder
from nestedge.verify import verify_artifact

SILENT = ("unknown", "converter-failed", "converter-refused")
"""Codes that say no more than that something failed."""


@dataclass(frozen=True)
class Outcome:
    """One cell of one network.

    Attributes:
        network: its name.
        cell: runtime and precision, or "nest" where it does not come that far.
        state: "verified", "not verified", "failed" or "skipped".
        code: of the reason, or "".
        operator: that fails, or "".
        source: where it stands, or "".
        words: what was said.
    """

    network: str
    cell: str
    state: str
    code: str = ""
    operator: str = ""
    source: str = ""
    words: str = ""


def outcomes(
    hostile: Hostile,
    folder: Path,
    *,
    runtimes: Sequence[str] = RUNTIMES,
    processes: int = 1,
) -> Iterator[Outcome]:
    """Nest, save and build a network, and verify what was built.

    Args:
        hostile: which.
        folder: is made; it has the .nest, the artifacts and the logs.
        runtimes: to build for.
        processes: that convert at a time.

    Raises:
        Exception: what no user should see.
    """
    folder.mkdir(parents=True)
    path = folder / "net.nest"
    torch.manual_seed(0)
    calibration = hostile.inputs(hostile.cases, seed=1) if hostile.cases else None
    try:
        nested = nest(
            hostile.make(), hostile.inputs(2, seed=0), {"only": 1.0}, calibration=calibration
        )
        nested.save(path)
    except CaptureError as error:
        found = error.diagnosis
        where = without_folder(found.source)
        yield Outcome(hostile.name, "nest", "failed", found.code, found.operator, where, found.line)
        return
    except NestedgeError as error:
        found = diagnose(error, None)
        yield Outcome(hostile.name, "nest", "failed", found.code, words=found.line)
        return
    del nested
    built = build(
        path, folder / "dist", Request([device()], runtimes=runtimes), processes=processes
    )
    for cell in built.asked.values():
        yield _outcome(hostile.name, cell, folder / "dist")


def device() -> DeviceProfile:
    """One that has everything."""
    targets = tuple(Target(runtime, ("1",), PRECISIONS, "a benchmark") for runtime in RUNTIMES)
    return DeviceProfile("every", "Everything", "linux", targets=targets, figures={}, match={})


def _outcome(network: str, cell: Cell, folder: Path) -> Outcome:
    name = f"{cell.runtime}-{cell.precision}"
    if cell.state != "built":
        return Outcome(
            network, name, cell.state, cell.code, cell.operator, cell.source, cell.reason
        )
    artifact = read_artifact(folder / cell.name)
    found = verify_artifact(artifact, load_runtime(artifact.checked_by))
    state = "verified" if found.passed else "not verified"
    return Outcome(network, name, state, words=found.reason)


def wrong(hostile: Hostile, found: Outcome) -> str:
    """What is wrong with an outcome, or ""."""
    expected = hostile.expected.get(found.cell, "verified")
    if found.code in SILENT:
        return f"the code is {found.code}: {found.words}"
    outcome = found.code or found.state
    is_expected = outcome == expected
    return "" if is_expected else f"expected {expected}, found {outcome}: {found.words}"
