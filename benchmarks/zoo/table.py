"""The records of the zoo as a Markdown table, one line a network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Record = dict[str, Any]
LIMIT = 1e-9
"""Of every relative error in double precision; a wrong channel makes one of order 1."""
ONNX_LIMIT = 1e-5
TRANSFORMER_LIMIT = 1e-4
"""In single precision, of what onnxruntime gives and of what torch gives."""
ROUNDING = 3.0
"""How much further than torch onnxruntime may be from the true value."""
LEAST_OUTPUT = 1e-3
LEAST_VARIATION = 1e-3
"""Of the output from one input to another: below, it is what biases make of it."""
COLUMNS = (
    "network",
    "parameters (M)",
    "captured",
    "exact at",
    "error",
    "error, zeroed",
    "max abs(y)",
    "variation",
    "parameters kept",
    "export (s)",
    "analysis (s)",
    "first level (s)",
    "further level (s)",
    "analysis / export",
    "further level / export",
    "ONNX error",
    "onnxruntime, torch: from double",
    "Torch-Pruning keeps",
)


def is_exact(record: Record) -> bool:
    """Whether every level was materialised and gives what the level does, and that is no trifle."""
    levels = record.get("levels", {}).values()
    is_done = record.get("stage") == "done" and record["captured"] <= LIMIT
    return is_done and all(map(is_level_exact, levels))


def is_level_exact(level: Record) -> bool:
    """Whether a level gives what it does in the network, and the user's module, and no trifle."""
    # A NaN compares as false.
    return bool(
        level["error"] <= LIMIT
        and level["zeroed"] <= LIMIT
        and LEAST_OUTPUT < level["smallest"] <= level["largest"] < math.inf
        and level["varies"] >= LEAST_VARIATION
    )


def is_right_onnx(record: Record) -> bool:
    """Whether onnxruntime is as close to the value in double precision as asked, or as torch is.

    Or, if not, whether the same file in double precision gives that value.
    """
    if record["stage"] != "done":
        return False
    if "reference" in record:
        # A file's attributes, such as the epsilon of a batch norm, are of single precision.
        return bool(record["reference"] <= ONNX_LIMIT)
    limit = TRANSFORMER_LIMIT if record["is_transformer"] else ONNX_LIMIT
    return bool(record["from_true"] <= max(limit, ROUNDING * record["torch_from_true"]))


def is_right_pruning(record: Record) -> bool:
    """Whether the pruned network runs and its outputs have the shapes that they had."""
    return record["stage"] == "done" and bool(record["same_outputs"])


def cost_ratios(record: Record) -> dict[str, float]:
    """The seconds of the analysis and of the dearest further level, in torch.exports."""
    seconds, levels = record.get("seconds", {}), list(record.get("levels", {}).values())
    found = {"analysis": seconds.get("analysis")}
    found["further level"] = max((level["seconds"] for level in levels[1:]), default=None)
    export = seconds.get("export")
    return {name: value / export for name, value in found.items() if value is not None and export}


def table(names: Sequence[str], records: Mapping[tuple[str, str], Record]) -> list[str]:
    """The lines of the table, without the networks that were not run."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for name in names:
        if record := records.get((name, "nestedge")):
            cells = [
                name,
                *_nested(record),
                *_figures(record),
                *_costs(records.get((name, "cost"), {})),
                *_onnx(records.get((name, "onnx"))),
                _pruned(records.get((name, "torch-pruning"))),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _nested(record: Record) -> tuple[str, str, str]:
    if "form" not in record:
        return "", "no", ""
    widths = (w for w, level in record.get("levels", {}).items() if is_level_exact(level))
    return f"{record['parameters'] / 1e6:.1f}", record["form"], ", ".join(widths) or "none"


def _figures(record: Record) -> Sequence[str]:
    levels = list(record.get("levels", {}).values())
    if not levels:
        return [""] * 5
    low = min(level["smallest"] for level in levels)
    high = max(level["largest"] for level in levels)
    return (
        _power(max(level["error"] for level in levels)),
        _power(max(level["zeroed"] for level in levels)),
        f"{low:.2g} to {high:.2g}",
        f"{min(level['varies'] for level in levels):.2g}",
        ", ".join(f"{level['ratio']:.2f}" for level in levels),
    )


def _power(error: float) -> str:
    return "0" if error == 0 else f"{error:.0e}"


def _costs(record: Record) -> Sequence[str]:
    seconds = record.get("seconds", {})
    levels = [level["seconds"] for level in record.get("levels", {}).values()]
    found = [seconds.get("export"), seconds.get("analysis"), *levels[:1]]
    found += [max(levels[1:])] if levels[1:] else []
    ratios = cost_ratios(record)
    cells = [f"{value:.2f}" if value is not None else "" for value in found]
    named = [f"{ratios[n]:.2f}" if n in ratios else "" for n in ("analysis", "further level")]
    return [*cells, *[""] * (4 - len(cells)), *named]


def _onnx(record: Record | None) -> tuple[str, str]:
    if record is None:
        return "", ""
    if record["stage"] != "done":
        return "fails", ""
    away = f"{_power(record['from_true'])}, {_power(record['torch_from_true'])}"
    if "reference" in record:
        away += f" ({_power(record['reference'])})"
    return _power(record["error"]), away if is_right_onnx(record) else f"**{away}**"


def _pruned(record: Record | None) -> str:
    if record is None:
        return ""
    if record["stage"] != "done":
        return "fails"
    return f"{record['ratio']:.2f}" + ("" if record["same_outputs"] else ", cuts outputs")


def reason(text: str) -> str:
    """Why something failed, in one line, without the folders of the machine that it failed on."""
    plain = re.sub(r"(?<![\w.])/[^\s()]*/(?:site|dist)-packages/", "", text.replace("\n", " "))
    return re.sub(r"(?<![\w.])/[^\s()]+/", "", plain).replace("|", "/")[:200]
