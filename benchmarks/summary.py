"""The README's tables from the long ones that the other benchmarks print.

    python -m benchmarks.summary exactness.md speed.md analysis.md

Each file is the output of the benchmark of its name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str]


def read_table(path: Path) -> list[Row]:
    """The rows of the Markdown table in a file, by column."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def by_network(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of every network, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["network"], []).append(row)
    return found


def exactness(rows: Sequence[Row]) -> list[str]:
    """One line a network: its worst errors, and whether all counts are the twin's."""
    lines = [
        "| network | levels | materialised vs level | level vs twin | counts equal |",
        "|---|---|---|---|---|",
    ]
    for network, levels in by_network(rows).items():
        worst = [max(float(row[c]) for row in levels) for c in _ERRORS]
        equal = all(row["both the twin's"] == "yes" for row in levels)
        errors = " | ".join(f"{error:.1e}" for error in worst)
        lines.append(f"| {network} | {len(levels)} | {errors} | {'yes' if equal else 'NO'} |")
    return lines


_ERRORS = ("materialised vs level", "level vs twin")


def speed(times: Sequence[Row], costs: Sequence[Row]) -> list[str]:
    """One line a network: the range of its ratios, and what nesting it costs."""
    cost = {row["network"]: row for row in costs}
    lines = [
        "| network | ONNX: level / twin | TFLite: level / twin | analysis | a further level |",
        "|---|---|---|---|---|",
    ]
    for network, rows in by_network(times).items():
        cells = [network]
        for runtime in ("onnx", "tflite"):
            ratios = [float(row["level / twin"]) for row in rows if row["runtime"] == runtime]
            cells.append(f"{min(ratios):.2f} - {max(ratios):.2f}")
        cells += [f"{cost[network][what]} exports" for what in _COSTS]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_COSTS = ("analysis / export", "level / export")


def main(paths: Sequence[str]) -> None:
    """Print both tables."""
    exact, times, costs = (Path(path) for path in paths)
    print("\n".join(exactness(read_table(exact))) + "\n")
    print("\n".join(speed(read_table(times), read_table(costs))))


if __name__ == "__main__":
    main(sys.argv[1:])
