"""What a recorded run of random networks gave, as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.graphs.checks import VARIES
from benchmarks.graphs.subjects import Record
from nestedge.axes.rules import RULES

LEAST_HITS = 50
TRAINING_ONLY = "aten.add_.Tensor"
"""A batch norm's counter: of the networks that are saved, the one in training has it."""


def summary(records: Sequence[Record]) -> tuple[list[str], bool]:
    """Lines of Markdown, and whether no property failed and every rule was hit often enough."""
    failed = [r for r in records if "failed" in r]
    rejected = [r for r in records if "rejected" in r]
    done = [r for r in records if "levels" in r]
    hits = Counter(op for r in done for op in r["ops"])
    rare = {op: hits[op] for op in sorted(RULES) if hits[op] < LEAST_HITS}
    lines = [
        (
            f"{len(records)} networks: {len(done)} checked, {len(failed)} failed, "
            f"{len(rejected)} rejected; {sum(r['nodes'] for r in done)} operator calls"
        ),
        "",
        *_oracles(done),
        "",
        *_counts("rejected", (r["rejected"] for r in rejected)),
        *_counts("levels refused", (v for r in done for v in r["refused"].values())),
        (
            f"operators with a rule: {len(RULES)}, hit in the fewest networks: "
            f"{min(hits[op] for op in RULES)}"
        ),
        f"hit in fewer than {LEAST_HITS}: {rare or 'none'}",
        *(f"FAILED {r['seed']}: {r['failed']}" for r in failed),
    ]
    return lines, not failed and not rare


def covering(records: Sequence[Record]) -> tuple[int, ...]:
    """Few seeds whose networks have, without training, all operators that those of a run have."""
    ops = {r["seed"]: set(r["ops"]) - {TRAINING_ONLY} for r in records if "levels" in r}
    open_: set[str] = set().union(*ops.values())
    chosen: list[int] = []
    while open_:
        best = max(ops, key=lambda seed: (len(ops[seed] & open_), -seed))
        chosen.append(best)
        open_ -= ops[best]
    return tuple(sorted(chosen))


def _oracles(done: Sequence[Record]) -> list[str]:
    levels = [level for r in done for level in r["levels"].values()]
    written = [r["written"] for r in done if "written" in r]
    rows: list[tuple[str, list[Any]]] = [
        ("the full network, captured", [r["captured"] for r in done]),
        ("materialised, against the level", [v["materialised"] for v in levels]),
        ("written as an exported program", [w["exported"] for w in written]),
        ("the level, against absent entries", [v["present"] for v in levels]),
        ("the level, against zeroed entries", [v["zeroed"] for v in levels]),
        ("the level, against a narrower twin", [r.get("twin") for r in done]),
        ("materialised, nested again", [w.get("again") for w in written]),
    ]
    lines = ["| compared | times | largest error |", "|---|---|---|"]
    for name, errors in rows:
        compared = [e for e in errors if isinstance(e, float)]
        lines.append(f"| {name} | {len(compared)} | {max(compared, default=0.0):.1e} |")
    masked = [v for v in levels if v["masked"]]
    uneven = Counter(op for v in levels for op in v["uneven"])
    undecided = Counter(op for v in levels for op in v["undecided"])
    twins = Counter(r["twin"] for r in done if isinstance(r.get("twin"), str))
    return [
        *lines,
        "",
        (
            f"levels: {len(levels)}, with masks {len(masked)}; whose output varies with the input: "
            f"{sum(v['varies'] > VARIES for v in levels)}"
        ),
        (
            f"of the masked: channels removed in {sum(v['removed'] > 0 for v in masked)}, "
            f"rings in {sum(v['rings'] > 0 for v in masked)}, "
            f"branches in {sum(v['branches'] > 0 for v in masked)}"
        ),
        f"saved and loaded: {sum('saved' in r for r in done)}",
        f"zero is not absent for: {dict(uneven.most_common())}",
        f"presence undecided by: {dict(undecided)}",
        f"no narrower twin: {dict(twins)}",
    ]


def _counts(title: str, reasons: Iterable[str]) -> list[str]:
    counted = Counter(reason[:100] for reason in reasons)
    return [f"{title}: {count} x {reason}" for reason, count in counted.most_common()]
