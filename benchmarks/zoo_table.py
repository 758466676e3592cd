"""The records of the zoo as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = dict[str, Any]
TOLERANCE = 1e-5
LEAST_OUTPUT = 1e-3
LEAST_VARIATION = 1e-3
"""Of the output from one input to another: below, it is what biases make of it."""
COLUMNS = (
    "network",
    "exported",
    "nested at",
    "error",
    "zeroed",
    "max abs(y), variation",
    "parameters at 1/2",
    "ONNX",
    "s: export, analysis, first level, further",
    "Torch-Pruning at 1/2",
)


def is_exact(record: Record) -> bool:
    """Whether every level was materialised and gives what the level does, and that is no trifle."""
    levels = record.get("levels", {}).values()
    return record.get("stage") == "done" and all(
        level["error"] <= TOLERANCE
        and LEAST_OUTPUT < level["smallest"] <= level["largest"]
        # A NaN compares as false.
        and level["largest"] < math.inf
        and level["varies"] >= LEAST_VARIATION
        for level in levels
    )


def markdown(
    names: Sequence[str], records: Mapping[tuple[str, str], Record]
) -> tuple[list[str], bool]:
    """The lines of the table with a line of counts, and whether every network is nested exactly."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    ran = [records[name, "nestedge"] for name in names if (name, "nestedge") in records]
    for record in ran:
        name = record["network"]
        cells = (
            name,
            _exported(record),
            _nested(record),
            *_figures(record),
            _onnx(records.get((name, "onnx"))),
            _seconds(record),
            _pruned(records.get((name, "torch-pruning"))),
        )
        lines.append(f"| {' | '.join(cells)} |")
    exported = sum("form" in record for record in ran)
    nested = sum(record["stage"] == "done" for record in ran)
    exact = sum(map(is_exact, ran))
    counts = f"{len(ran)} networks: {exported} exported, {nested} nested, {exact} exact"
    others = [r for (name, check), r in records.items() if check != "nestedge" and name in names]
    for check in ("onnx", "torch-pruning"):
        its = [record for record in others if record["check"] == check]
        if its:
            counts += f"; {check} {sum(r['stage'] == 'done' for r in its)} of {len(its)}"
    return [*lines, "", counts], exact == len(names)


def _exported(record: Record) -> str:
    if "form" not in record:
        return f"no: {_cell(record.get('failed', 'not finished'))}"
    if record["form"] == "whole":
        return "yes"
    return f"{record['form']} (whole: {_cell(record['not_whole'] or '')})"


def _nested(record: Record) -> str:
    if "form" not in record:
        return ""
    levels = record.get("levels", {})
    done = ", ".join(width for width, level in levels.items() if level["error"] <= TOLERANCE)
    if record["stage"] == "done":
        return done or "no: wrong at every width"
    return f"{done or 'no'}; {record['stage']}: {_cell(record.get('failed', 'not finished'))}"


def _figures(record: Record) -> tuple[str, str, str, str]:
    levels = record.get("levels", {})
    if not levels:
        return "", "", "", ""
    worst = max(level["error"] for level in levels.values())
    zeroed = max(level["zeroed"] for level in levels.values())
    varies = min(level["varies"] for level in levels.values())
    low = min(level["smallest"] for level in levels.values())
    high = max(level["largest"] for level in levels.values())
    ratio = f"{levels['0.5']['ratio']:.3f}" if "0.5" in levels else ""
    return f"{worst:.1e}", f"{zeroed:.1e}", f"{low:.2g} - {high:.2g}, {varies:.1g}", ratio


def _seconds(record: Record) -> str:
    taken = record.get("seconds", {})
    found = [taken.get("export"), taken.get("analysis")]
    found += [level["seconds"] for level in record.get("levels", {}).values()][:2]
    return ", ".join(f"{value:.1f}" for value in found if value is not None)


def _onnx(record: Record | None) -> str:
    if record is None:
        return ""
    if record["stage"] == "done":
        return f"{record['error']:.1e}"
    return f"no: {_cell(record.get('failed', 'not finished'))}"


def _pruned(record: Record | None) -> str:
    if record is None:
        return ""
    if record["stage"] != "done":
        return f"failed: {_cell(record.get('failed', 'not finished'))}"
    other = "" if record["same_outputs"] else ", outputs cut too"
    return f"{record['ratio']:.3f}{other}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:120]
