"""What thirty broken or hostile networks end in, as a Markdown table.

    python -m benchmarks.hostile [--jobs N] [--results FILE] [NAME ...]

Each is nested at one level, saved, and built for ONNX Runtime, TFLite and TensorRT in fp32, fp16
and int8; what is built is verified. A cell that is neither verified nor has a code that says
something, or another than is expected, is an error, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from benchmarks.hostile.networks import NETWORKS
from benchmarks.hostile.outcomes import Outcome, outcomes, wrong
from benchmarks.records import read_records
from nestedge.reasons import REASONS

HEADER = """# What cannot be built

Printed by `python -m benchmarks.hostile`; do not edit.

Networks that something is wrong with, or that some runtime has no words for, each nested at one
level and built for ONNX Runtime, TFLite and TensorRT in fp32, fp16 and int8. A cell is verified, or
it ends in a code of [errors.md](errors.md), with the operator, its module and line, and a remedy;
the other cells of the network are built all the same. What is built and then found not to give
what the level gives is "not verified".
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark, or goes on with it, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("hostile.jsonl"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    networks = [n for n in NETWORKS if not options.names or n.name in options.names]
    known = read_records(options.results, lambda record: str(record["network"]))
    errors = []
    rows: list[Outcome] = []
    for hostile in networks:
        if hostile.name in known:
            found = [Outcome(**row) for row in known[hostile.name]["outcomes"]]
        else:
            with tempfile.TemporaryDirectory() as folder:
                found = list(outcomes(hostile, Path(folder) / "run", processes=options.jobs))
            record = {"network": hostile.name, "outcomes": [asdict(row) for row in found]}
            with options.results.open("a") as file:
                file.write(json.dumps(record) + "\n")
        rows += found
        mistakes = ((row, wrong(hostile, row)) for row in found)
        errors += [f"{row.network}: {row.cell}: {what}" for row, what in mistakes if what]
        print(f"{hostile.name}: {len(found)} cells", file=sys.stderr)
    print("\n".join(page(rows)))
    print("\n".join(errors), file=sys.stderr)
    sys.exit(1 if errors else 0)


def page(rows: Iterable[Outcome]) -> Iterator[str]:
    """The lines of docs/hostile.md: what the rows are, and the table."""
    yield from HEADER.splitlines()
    yield ""
    yield from table(rows)


def table(rows: Iterable[Outcome]) -> Iterator[str]:
    """The rows of a Markdown table: cells of one network with one outcome are one row."""
    yield "| network | cells | outcome | operator | where | remedy |"
    yield "|---|---|---|---|---|---|"
    for network, group in groupby(rows, key=lambda row: row.network):
        cells: dict[tuple[str, str, str], list[str]] = {}
        for row in group:
            outcome = row.code or row.state
            cells.setdefault((outcome, row.operator, row.source), []).append(row.cell)
        for (outcome, operator, source), names in cells.items():
            remedy = REASONS[outcome].remedy if outcome in REASONS else ""
            where = source.replace("|", "\\|")
            parts = [network, _short(names), outcome, operator, where, remedy]
            yield f"| {' | '.join(parts)} |"


def _short(cells: Sequence[str]) -> str:
    """Cells by runtime, as in "onnx fp32 fp16, tflite int8"."""
    runtimes: dict[str, list[str]] = {}
    for cell in cells:
        runtime, _, precision = cell.partition("-")
        runtimes.setdefault(runtime, []).append(precision)
    return ", ".join(" ".join([name, *precisions]).strip() for name, precisions in runtimes.items())
