"""Latency of exported levels beside the hand-written network's own export, as a Markdown table.

    python -m benchmarks.speed [NAME ...]

A name is part of a network's. The twin is exported as anyone would: torch.onnx.export with dynamo,
and litert_torch.convert, of the module in evaluation mode. Both files are run by the same runtime
in one thread, in rounds of one call each, in random order. A session's speed depends a little on
where its memory happens to lie, so that each file is opened several times.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import litert_torch
import numpy as np
import numpy.typing as npt
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from benchmarks.subjects import OWN, RESNET18, WIDTHS, Subject, find
from nestedge.building.plain import convert_level
from nestedge.materialization import state_dict
from nestedge.nested import nest
from nestedge.plugins import Runtime, Session
from nestedge.profiling.statistics import median_interval
from nestedge.profiling.timing import measure_interleaved, time_call
from nestedge.redirection import silenced
from nestedge.verify import relative_error
from nestedge_onnx.runtime import OnnxRuntime
from nestedge_tflite.runtime import LiteRtRuntime

OPENINGS = 6
SECONDS = 6.0
TOLERANCE = 1e-5

SUBJECTS = (
    (OWN[0], 8),
    (OWN[1], 8),
    (OWN[3], 8),
    (OWN[5], 8),
    (OWN[6], 8),
    (RESNET18, 1),
)
"""The networks, each with a batch that makes the smallest level take 0.1 ms or more."""


@dataclass(frozen=True)
class Target:
    """A runtime, and how anyone exports for it.

    Attributes:
        runtime: that runs both files.
        export: writes a module for example images.
        count: the operators of a file.
    """

    runtime: Runtime
    export: Callable[[nn.Module, Tensor, Path], None]
    count: Callable[[Path], int]


@dataclass(frozen=True)
class Row:
    """One level beside its twin.

    Attributes:
        network: its name.
        batch: images a call.
        width: of the level.
        runtime: that ran both.
        level: median milliseconds.
        twin: median milliseconds.
        ratio: median of level / twin, of paired rounds.
        low: lower end of its 95 % bootstrap interval.
        high: upper end of it.
        operators: of the level's file and of the twin's.
    """

    network: str
    batch: int
    width: float
    runtime: str
    level: float
    twin: float
    ratio: float
    low: float
    high: float
    operators: tuple[int, int]


def compare(subject: Subject, batch: int, folder: Path) -> Iterator[Row]:
    """Export and time a network's levels at four widths for two runtimes."""
    model = subject.full()
    redraw(model, seed=0)
    images = subject.images(batch)
    nested = nest(model, images, {f"width-{round(100 * w)}": w for w in WIDTHS})
    for level, width in zip(nested.levels, WIDTHS, strict=True):
        twin = subject.twin(width=width).eval()
        twin.load_state_dict(state_dict(nested, level), strict=True)
        for name, target in TARGETS.items():
            ours, theirs = folder / f"level.{name}", folder / f"twin.{name}"
            with silenced():
                ours.write_bytes(convert_level(nested, level, name, batch=batch))
                target.export(twin, images, theirs)
            times = _times(target.runtime, ours, theirs, images=images.numpy())
            ratios = times["level"] / times["twin"]
            low, high = median_interval(ratios, rng=np.random.default_rng(0))
            yield Row(
                network=subject.name,
                batch=batch,
                width=width,
                runtime=name,
                level=float(np.median(times["level"])),
                twin=float(np.median(times["twin"])),
                ratio=float(np.median(ratios)),
                low=low,
                high=high,
                operators=(target.count(ours), target.count(theirs)),
            )


def _times(
    runtime: Runtime, ours: Path, theirs: Path, *, images: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.float64]]:
    """Milliseconds of both files, of all openings together: shape (rounds,).

    Raises:
        ValueError: the two files do not compute the same.
    """
    taken: dict[str, list[npt.NDArray[np.float64]]] = {"level": [], "twin": []}
    rng = np.random.default_rng(0)
    for opening in range(OPENINGS):
        # Whoever is opened first has the better memory, if there is one.
        paths = {"level": ours, "twin": theirs}
        order = list(paths) if opening % 2 else list(paths)[::-1]
        sessions = {name: runtime.open(paths[name], threads=1) for name in order}
        found, expected = (_outputs(sessions[name], images) for name in ("level", "twin"))
        if not relative_error(found, expected) <= TOLERANCE:
            raise ValueError(f"{ours.name} is not its twin: {relative_error(found, expected):.1e}")
        calls = {name: _call(session, images) for name, session in sessions.items()}
        one = min(time_call(call) for call in calls.values() for _ in range(5))
        rounds = max(30, int(1000 * SECONDS / OPENINGS / (2 * one)))
        for name, times in measure_interleaved(calls, rounds=rounds, rng=rng).items():
            taken[name].append(times)
    return {name: np.concatenate(times) for name, times in taken.items()}


def _call(session: Session, images: npt.NDArray[np.float32]) -> Callable[[], object]:
    inputs = {session.inputs[0].name: images}
    return lambda: session.run(inputs)


def _outputs(session: Session, images: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
    return next(iter(session.run({session.inputs[0].name: images}).values()))


def export_onnx(twin: nn.Module, images: Tensor, path: Path) -> None:
    """Write a module as ONNX by torch.onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(twin, (images,), dynamo=True, verbose=False)
    assert exported is not None
    onnx.save(exported.model_proto, path)


def export_tflite(twin: nn.Module, images: Tensor, path: Path) -> None:
    """Write a module as TFLite by litert-torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litert_torch.convert(twin, (images,)).export(str(path))


def _count_onnx(path: Path) -> int:
    return len(onnx.load(path).graph.node)


def _count_tflite(path: Path) -> int:
    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    assert graph is not None
    return int(graph.OperatorsLength())


TARGETS = {
    "onnx": Target(OnnxRuntime(), export_onnx, _count_onnx),
    "tflite": Target(LiteRtRuntime(), export_tflite, _count_tflite),
}


def line(row: Row) -> str:
    """A row of the table."""
    cells = (
        row.network,
        str(row.batch),
        str(row.width),
        row.runtime,
        f"{row.level:.3f}",
        f"{row.twin:.3f}",
        f"{row.ratio:.3f}",
        f"{row.low:.3f}-{row.high:.3f}",
        f"{row.operators[0]} / {row.operators[1]}",
    )
    return f"| {' | '.join(cells)} |"


def main(names: Sequence[str]) -> int:
    """Print the table."""
    versions = ", ".join(target.runtime.version() for target in TARGETS.values())
    print(f"{versions}; 1 thread; resnet18 sees images of 96x96, the others of 32x32\n")
    print(
        "| network | batch | width | runtime | level ms | twin ms | level / twin | 95 % "
        "| operators level / twin |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    chosen = find(tuple(subject for subject, _ in SUBJECTS), tuple(names))
    for subject, batch in SUBJECTS:
        if subject not in chosen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in compare(subject, batch, Path(folder)):
                print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
