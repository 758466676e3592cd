"""What nesting costs beside one torch.export, as a Markdown table.

    python -m benchmarks.analysis [NAME ...]

A name is part of a network's. "analysis" finds what is elastic about an exported program; "level"
adds a level and materialises it. Seconds are those of the processor in one thread: what else the
machine does then hardly matters. Exits 1 when either takes longer than it should.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from benchmarks.subjects import OWN, RESNET18, RESNET50, VIT12, Subject, find
from nestedge.elastic import study
from nestedge.materialization import materialize
from nestedge.nested import nest

MOST_FOR_ANALYSIS = 2.0
MOST_FOR_LEVEL = 1.0
RUNS = 5

SUBJECTS = (OWN[0], OWN[1], OWN[3], OWN[5], OWN[6], RESNET18, RESNET50, VIT12)


@dataclass(frozen=True)
class Row:
    """Seconds of one network.

    Attributes:
        network: its name.
        operators: of its program.
        export: one torch.export, the best of some.
        analysis: the median of some.
        level: adding and materialising one more, the median of some.
    """

    network: str
    operators: int
    export: float
    analysis: float
    level: float

    @property
    def passed(self) -> bool:
        """Whether both are as fast as they should be."""
        return (
            self.analysis <= MOST_FOR_ANALYSIS * self.export
            and self.level <= MOST_FOR_LEVEL * self.export
        )


def measure(subject: Subject) -> Row:
    """Time export, analysis and one more level of a network."""
    model = subject.full().eval()
    images = subject.images(2)
    # What is imported and compiled at the first call is not to be measured.
    _export(model, images)
    exports = [_seconds(lambda: _export(model, images)) for _ in range(RUNS)]
    nested = nest(model, images, {"warm": 0.5})
    materialize(nested, "warm")
    program = nested.elastic.program

    def add(run: int) -> None:
        nested.add_level(f"run-{run}", 0.25 + run / (2 * RUNS))
        materialize(nested, f"run-{run}")

    levels = [_seconds(lambda run=run: add(run)) for run in range(RUNS)]  # type: ignore[misc]
    return Row(
        network=subject.name,
        operators=len(program.nodes),
        export=min(exports),
        analysis=median(_seconds(lambda: study(program)) for _ in range(RUNS)),
        level=median(levels),
    )


def _export(model: nn.Module, images: torch.Tensor) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.export(model, (images,), dynamic_shapes=shapes, strict=False)


def _seconds(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def lines(rows: Iterator[Row]) -> Iterator[tuple[str, bool]]:
    """The lines of the table, each with whether it is as it should be."""
    header = ("network", "operators", "export s", "analysis s", "analysis / export")
    yield f"| {' | '.join(header)} | level s | level / export |", True
    yield "|---|---|---|---|---|---|---|", True
    for row in rows:
        cells = (
            row.network,
            str(row.operators),
            f"{row.export:.2f}",
            f"{row.analysis:.2f}",
            f"{row.analysis / row.export:.2f}",
            f"{row.level:.2f}",
            f"{row.level / row.export:.2f}",
        )
        yield f"| {' | '.join(cells)} |", row.passed


def main(names: Sequence[str]) -> int:
    """Print the table; 1 when something takes longer than it should."""
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, processor seconds, 1 thread; export: best of {RUNS}, the "
        f"others: median of {RUNS}. At most {MOST_FOR_ANALYSIS} and {MOST_FOR_LEVEL} exports are "
        "expected.\n"
    )
    slow = 0
    for text, passed in lines(map(measure, find(SUBJECTS, tuple(names)))):
        print(text, flush=True)
        slow += not passed
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
