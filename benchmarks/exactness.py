"""Every level against the same network written by hand, as a Markdown table.

    python -m benchmarks.exactness [NAME ...]

A name is part of a network's; without one all are checked, torchvision's own where it is
installed. Exits 1 when a level is not its twin.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.networks.counting import count_macs, count_parameters
from benchmarks.networks.redraw import redraw
from benchmarks.subjects import OWN, WIDTHS, Subject, find, torchvision_subjects
from nestedge import cost
from nestedge.levels import Level
from nestedge.materialization import level_program, materialize, state_dict
from nestedge.nested import NestedModel, nest
from nestedge.tree import named

TOLERANCE = 1e-5
CASES = 8
TORCHVISION_SIZE = 64


@dataclass(frozen=True)
class Row:
    """What the comparison of one level with its twin gave.

    Attributes:
        network: its name.
        level: its name.
        materialized: error of the materialised level against the level.
        twin: error of the level against the twin.
        parameters: of the level.
        macs: of the level, for one image.
        counts_equal: whether the twin has as many of both.
        unseen: tensors whose redrawing does not change the level's output.
        largest: max|y|.
    """

    network: str
    level: str
    materialized: float
    twin: float
    parameters: int
    macs: int
    counts_equal: bool
    unseen: tuple[str, ...]
    largest: float

    @property
    def passed(self) -> bool:
        """Whether the level is its twin."""
        errors = (self.materialized, self.twin)
        # A NaN compares as false.
        exact = all(error <= TOLERANCE for error in errors) and 0 < self.largest < math.inf
        return exact and self.counts_equal and not self.unseen


def error_of(found: Tensor, expected: Tensor) -> float:
    """max|found - expected| / max|expected|, NaN if there is one in either."""
    difference = (found.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max())


def compare(subject: Subject) -> Iterator[Row]:
    """Nest a network and compare its levels, at four widths and two depths, with their twins."""
    model = subject.full()
    redraw(model, seed=0)
    images = subject.images(CASES)
    nested = nest(model, images[:2], {})
    for depth in (None, subject.shallow):
        for width in WIDTHS:
            name = f"width-{round(100 * width)}-{'full' if depth is None else 'shallow'}"
            nested.add_level(
                name, Level(width, depth=1.0 if depth is None else subject.level_depth)
            )
            twin = subject.twin(width=width, depth=depth).eval()
            _redraw_own(nested, name, twin)
            twin.load_state_dict(state_dict(nested, name), strict=True)
            yield _compare_level(subject, nested, name, twin, images)


def _redraw_own(nested: NestedModel, level: str, twin: nn.Module) -> None:
    """Draw a level's own batch norms anew, so that none can be mistaken for a shared one."""
    redraw(twin, seed=len(nested.levels))
    drawn = twin.state_dict()
    with torch.no_grad():
        for name, tensor in nested.own_tensors(level).items():
            tensor.copy_(drawn[name])


def _compare_level(
    subject: Subject, nested: NestedModel, level: str, twin: nn.Module, images: Tensor
) -> Row:
    with torch.no_grad(), nested.at(level):
        found = nested(images)
    physical = materialize(nested, level).module()
    program = level_program(nested, level).program
    parameters, macs = cost.count_parameters(program), cost.count_macs(program)
    with torch.no_grad():
        materialized, expected = physical(images), twin(images)
    counts = (parameters, macs, sum(p.numel() for p in physical.parameters()))
    wanted = (count_parameters(twin), count_macs(twin, images[:1]), count_parameters(twin))
    return Row(
        network=subject.name,
        level=level,
        materialized=error_of(materialized, found),
        twin=error_of(found, expected),
        parameters=parameters,
        macs=macs,
        counts_equal=counts == wanted,
        unseen=tuple(_unseen(nested, level, images[:1])),
        largest=float(expected.abs().max()),
    )


def _unseen(nested: NestedModel, level: str, images: Tensor) -> Iterator[str]:
    """The tensors of a level that may be redrawn without changing what it gives."""
    generator = torch.Generator().manual_seed(0)
    tensors = {**named(nested.shared), **nested.own_tensors(level)}
    with torch.no_grad(), nested.at(level):
        before = nested(images)
        for name in sorted(nested.plan(level).uses):
            tensor = tensors[name]
            if not tensor.is_floating_point():
                continue
            kept = tensor.clone()
            # Positive, because some are variances.
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            if torch.equal(nested(images), before):
                yield name
            tensor.copy_(kept)


def line(row: Row) -> str:
    """A row of the table."""
    cells = (
        row.network,
        row.level,
        f"{row.materialized:.1e}",
        f"{row.twin:.1e}",
        f"{row.parameters:,}",
        f"{row.macs:,}",
        "yes" if row.counts_equal else "NO",
        f"NO: {', '.join(row.unseen)}" if row.unseen else "yes",
        f"{row.largest:.3g}",
    )
    return f"| {' | '.join(cells)} |"


def main(names: Sequence[str]) -> int:
    """Print the table; 1 when a level is not its twin."""
    subjects = find((*OWN, *torchvision_subjects(size=TORCHVISION_SIZE)), tuple(names))
    print(
        f"torch {torch.__version__}, float32, {CASES} inputs, error = max abs(a - b) / max abs(b)"
    )
    if any(subject.size == TORCHVISION_SIZE for subject in subjects):
        print(f"torchvision's networks see images of {TORCHVISION_SIZE}x{TORCHVISION_SIZE}.")
    print()
    print(
        "| network | level | materialised vs level | level vs twin | parameters | MACs "
        "| both the twin's | every tensor matters | max abs(y) |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    failed = 0
    for subject in subjects:
        for row in compare(subject):
            print(line(row), flush=True)
            failed += not row.passed
    print(f"\n{failed} failed" if failed else "\nall passed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
