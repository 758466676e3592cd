"""Mistakes put into the core one by one, and the tests that notice each, as a Markdown table.

    python -m benchmarks.mutations [NAME ...]

A name is part of a mistake's. Every mistake is made in a copy of the repository by replacing text;
exits 1 when the tests pass in spite of one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("nestedge", "converters", "benchmarks", "tests", "pyproject.toml")
RULES = ("tests/axes/test_rewrite.py", "tests/axes/test_rules.py")


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes:
        name: what is wrong.
        file: the file of nestedge that it is in.
        old: the text replaced; it occurs once.
        new: what replaces it.
        tests: the tests that are to notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = RULES


MUTATIONS = (
    Mutation(
        "the operands of a sum are not tied",
        "axes/rules.py",
        "    for operand in others:",
        "    for operand in others[:0]:",
    ),
    Mutation(
        "units that meet are not tied",
        "axes/tags.py",
        "                self.tie(plane, second[i])",
        "                pass",
    ),
    Mutation(
        "slices are shifted by one",
        "axes/rewrite.py",
        'dict(zip(("start", "end"), bounds, strict=True))',
        'dict(zip(("start", "end"), (b + 1 for b in bounds), strict=True))',
    ),
    Mutation(
        "sizes of reshape are not rewritten",
        "axes/rewrite.py",
        '    "aten.reshape.default": _resize("shape"),\n',
        "",
    ),
    Mutation(
        "padding in front and behind are swapped",
        "axes/rewrite.py",
        "            amounts[2 * i] = ",
        "            amounts[2 * i + 1] = ",
        ("tests/axes/test_rewrite.py",),
    ),
    Mutation(
        "numbers of groups are not rewritten",
        "axes/rewrite.py",
        "        if a[argument] == 1 or kept is None:",
        "        if True:",
        ("tests/axes/test_rewrite.py",),
    ),
    Mutation(
        "the shape of a layer norm is not rewritten",
        "axes/rewrite.py",
        '    "aten.layer_norm.default": _normalized_shape,\n',
        "",
        ("tests/axes/test_rewrite.py",),
    ),
    Mutation(
        "groups may be cut",
        "axes/contractions.py",
        "        ties.tie(by_group, by_group[:, :1])",
        "        pass",
    ),
    Mutation(
        "outputs may be cut",
        "axes/analysis.py",
        "                self.ties.freeze(plane)",
        "                pass",
    ),
    Mutation(
        "a reduction forgets the units of what it reduces",
        "axes/rules.py",
        '    value: Tags = call.a["self"]\n    rank',
        '    value: Tags = Tags(call.a["self"].shape)\n    rank',
    ),
    Mutation(
        "the scale of attention follows the level's width",
        "axes/rewrite.py",
        '    "aten.scaled_dot_product_attention.default": _attention_scale,\n',
        "",
    ),
    Mutation(
        "the parts of a split are one axis",
        "axes/layout.py",
        "*(row for _, row in _rows(analysis)), *values]",
        "*(row for _, row in _rows(analysis))]",
    ),
    Mutation(
        "a sum that broadcasts is a block",
        "axes/blocks.py",
        "        return not grown",
        "        return True",
        ("tests/axes/test_blocks.py",),
    ),
    Mutation(
        "a stage keeps its last blocks",
        "levels.py",
        "            kept[axis_name] = ((0, blocks),)",
        "            n = depth[axis_name].size\n            kept[axis_name] = ((n - blocks, n),)",
        ("tests/test_levels.py", "tests/axes/test_blocks.py"),
    ),
    Mutation(
        "what a dropped block concatenates stays",
        "elastic.py",
        "kept.update(dict.fromkeys(self._axes_of(piece), ()))",
        "pass",
        ("tests/test_materialization.py",),
    ),
    Mutation(
        "norms are folded without their means",
        "expressions.py",
        "((bias - mean.astype(np.float64)) * scale",
        "((bias - 0 * mean.astype(np.float64)) * scale",
        ("tests/test_folding.py", "tests/test_expressions.py"),
    ),
    Mutation(
        "masks are inverted",
        "masks.py",
        "({level} if code % 2 else frozenset())",
        "(frozenset() if code % 2 else {level})",
        ("tests/test_masks.py",),
    ),
    Mutation(
        "masks that do not nest are accepted",
        "masks.py",
        "        if not pairs or any(",
        "        if True or any(",
        ("tests/test_masks.py",),
    ),
    Mutation(
        "the entries of a unit are counted as one",
        "nesting.py",
        "found.append((start * run.repeat + shift, stop * run.repeat + shift))",
        "found.append((start + shift, stop + shift))",
        ("tests/test_nesting.py",),
    ),
    Mutation(
        "other names of tied tensors are left out",
        "materialization.py",
        "    return {**found, **tied}",
        "    return found",
        ("tests/test_materialization.py",),
    ),
)


def noticed(mutation: Mutation, copy: Path) -> list[str]:
    """The tests that fail, of at most three, once a mistake is made in a copy of the repository.

    Raises:
        ValueError: the text to replace does not occur once.
    """
    file = copy / "nestedge" / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: expected the text once in {mutation.file}")
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--maxfail=3",
        "--tb=no",
        "-p",
        "no:cacheprovider",
    ]
    try:
        finished = subprocess.run(
            [*command, *mutation.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(text, encoding="utf-8")
    return re.findall(r"^(?:FAILED|ERROR) (\S+?(?:\[[^\]]*\])?)(?= - |$)", finished.stdout, re.M)


def main(names: Sequence[str]) -> int:
    """Print the table; 1 when a mistake went unnoticed."""
    chosen = [m for m in MUTATIONS if not names or any(name in m.name for name in names)]
    unnoticed = 0
    print("| mistake | tests that notice | the first |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
                shutil.copytree(source, copy / name, ignore=ignored)
            else:
                shutil.copy(source, copy / name)
        for mutation in chosen:
            red = noticed(mutation, copy)
            unnoticed += not red
            first = red[0].rpartition("::")[2] if red else "**none**"
            count = f"{len(red)}{' or more' if len(red) == 3 else ''}"
            print(f"| {mutation.name} | {count} | {first} |", flush=True)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
