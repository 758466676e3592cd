"""How much faster than the full network NestedNet's levels are, as a Markdown table.

    python -m benchmarks.speedups [--batch N ...]

The four networks in one of NestedNet's table 2 (Kim, Ahn and Oh, 2018, arXiv:1712.03781), each
materialised and run by ONNX Runtime in one thread on images of 32x32, beside the speed-ups that the
paper measured with a batch of its training on a TITAN X. All files are called in rounds, in an
order drawn anew, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.networks.redraw import redraw
from benchmarks.networks.wrn import WideResNet
from benchmarks.networks.wrn_levels import wide_level
from nestedge.building.plain import convert_level
from nestedge.card import Card
from nestedge.cost import count_macs, count_parameters
from nestedge.materialization import harvest_level
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.profiling.statistics import median_interval
from nestedge.profiling.timing import measure_interleaved
from nestedge.program.graph import Program
from nestedge_onnx.runtime import OnnxRuntime

FULL = (32, 4)
PUBLISHED: dict[tuple[int, int], float] = {FULL: 1.0, (14, 4): 1.5, (32, 1): 5.2, (14, 1): 7.4}
"""Speed-ups of WRN-layers-widen."""

ROUNDS = 40
CLASSES = 100


@dataclass(frozen=True)
class Row:
    """One level beside the full network.

    Attributes:
        name: of the level.
        parameters: as a share of the full network's.
        macs: as a share of the full network's.
        milliseconds: median of a call.
        speedup: median over rounds of the full network's time / the level's.
        low: lower end of its 95 % bootstrap interval.
        high: upper end of it.
        published: the paper's speed-up.
    """

    name: str
    parameters: float
    macs: float
    milliseconds: float
    speedup: float
    low: float
    high: float
    published: float


def name_of(wide: tuple[int, int]) -> str:
    """WRN-layers-widen."""
    layers, widen = wide
    return f"WRN-{layers}-{widen}"


def nested_family() -> NestedModel:
    """The four networks in one, with weights drawn at random."""
    full = WideResNet(*FULL, num_classes=CLASSES, shortcut="pad")
    redraw(full, seed=0)
    levels = {
        name_of((layers, widen)): wide_level(layers, widen, full) for layers, widen in PUBLISHED
    }
    return nest(full, torch.zeros(2, 3, 32, 32), levels, card=Card(divisor=1))


def rows(
    nested: NestedModel, programs: Mapping[str, Program], batch: int, folder: Path
) -> Iterator[Row]:
    """Time every level with so many images a call.

    Args:
        nested: the four networks in one.
        programs: what each level is, materialised.
        batch: images of a call.
        folder: for files.
    """
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    calls = {}
    for level in nested.levels:
        path = folder / f"{level}.onnx"
        path.write_bytes(convert_level(nested, level, "onnx", batch=batch))
        session = OnnxRuntime().open(path, threads=1)
        calls[level] = partial(session.run, {session.inputs[0].name: images})
    times = measure_interleaved(calls, rounds=ROUNDS, rng=np.random.default_rng(0))
    full = name_of(FULL)
    for wide, published in PUBLISHED.items():
        name = name_of(wide)
        ratios = times[full] / times[name]
        low, high = median_interval(ratios, rng=np.random.default_rng(0))
        parameters, macs = (
            count(programs[name]) / count(programs[full])
            for count in (count_parameters, count_macs)
        )
        yield Row(
            name=name,
            parameters=parameters,
            macs=macs,
            milliseconds=float(np.median(times[name])),
            speedup=float(np.median(ratios)),
            low=low,
            high=high,
            published=published,
        )


def line(batch: int, row: Row) -> str:
    """A row of the table."""
    cells = (
        row.name,
        f"{100 * row.parameters:.3g} %",
        f"{100 * row.macs:.3g} %",
        str(batch),
        f"{row.milliseconds:.2f}",
        f"{row.speedup:.2f}x ({row.low:.2f}-{row.high:.2f})",
        f"{row.published:g}x",
    )
    return f"| {' | '.join(cells)} |"


def main(given: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedups")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    options = parser.parse_args(given)
    print(f"{OnnxRuntime().version()}; 1 thread; images of 32x32\n")
    print("| level | parameters | MACs | batch | ms | speed-up (95 %) | published |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    nested = nested_family()
    programs = {level: harvest_level(nested, level).level.program for level in nested.levels}
    for batch in options.batch:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(nested, programs, batch, Path(folder)):
                print(line(batch, row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
