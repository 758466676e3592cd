"""`nestedge inspect`: the levels of a nested network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.cli.text import json_option, print_json, table
from nestedge.inspection import VECTOR, Inspection, inspect
from nestedge.nestfile import load


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@json_option
def command(model: Path, as_json: bool) -> None:
    """Show the levels of MODEL.nest: what they cost, how they nest, where a width is wasted."""
    found = inspect(load(model))
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(_text(found))


def _text(found: Inspection) -> str:
    largest = max((level.parameters for level in found.levels.values()), default=1)
    rows = [
        (
            name,
            f"{level.parameters:,}",
            f"{100 * level.parameters / largest:.1f} %",
            f"{level.macs:,}",
            " ".join(f"{kept}/{size}" for kept, size in level.blocks.values()) or "-",
            ", ".join(level.inside) or "-",
        )
        for name, level in found.levels.items()
    ]
    header = ("level", "parameters", "share", "MACs", "blocks", "inside")
    elastic = {name: bounds for name, bounds in found.axes.items() if len(bounds) > 2}
    order = "a chain" if found.is_chain else "a partial order"
    proof = (
        f"nesting: {order}, proved on {len(found.axes)} axes, {len(elastic)} of them cut; "
        f"{found.tiles} tiles, {found.stored_parameters:,} stored parameters"
    )
    lines = [table(header, rows), "", proof]
    for name, level in found.levels.items():
        if level.wasted:
            layers = ", ".join(f"{layer} ({n})" for layer, n in list(level.wasted.items())[:6])
            found_in = f"{layers}{_more(level.wasted)}"
            lines.append(f"{name}: no multiple of {VECTOR} outputs in {found_in}")
        if level.removed:
            dead = ", ".join(f"{n} of {axis}" for axis, n in list(level.removed.items())[:6])
            lines.append(f"{name}: dead through masks and removed: {dead}{_more(level.removed)}")
        lines += [f"{name}: {s.units} of {s.axis} constant, kept: {s.reason}" for s in level.stayed]
    return "\n".join(lines)


def _more(shown: Collection[object], limit: int = 6) -> str:
    return f" and {len(shown) - limit} more" if len(shown) > limit else ""
