"""`nestedge inspect`: the levels of a nested network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.cli.text import json_option, print_json, table
from nestedge.inspection import VECTOR, Inspection, LevelReport, inspect
from nestedge.nestfile import load


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--multiple",
    type=click.IntRange(min=2),
    help="List the layers whose width is no multiple of this, which gains nothing over the next "
    f"one: 8, 16 or 32 by runtime and precision. Without it they are named for {VECTOR}.",
)
@json_option
def command(model: Path, multiple: int | None, as_json: bool) -> None:
    """Show the levels of MODEL.nest: what they cost, how they nest, where a width is wasted."""
    found = inspect(load(model), multiple=multiple or VECTOR)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(_text(found))
    if multiple is not None:
        click.echo(f"\n{_widths(found)}")


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
    lines += [line for name, level in found.levels.items() for line in _notes(found, name, level)]
    return "\n".join(lines)


def _notes(found: Inspection, name: str, level: LevelReport) -> Iterator[str]:
    """What else there is to say about a level, a line each."""
    if level.wasted:
        layers = ", ".join(f"{wasted.layer} ({wasted.width})" for wasted in level.wasted[:6])
        yield f"{name}: no multiple of {found.multiple} outputs in {layers}{_more(level.wasted)}"
    if level.removed:
        dead = ", ".join(f"{n} of {axis}" for axis, n in list(level.removed.items())[:6])
        yield f"{name}: dead through masks and removed: {dead}{_more(level.removed)}"
    if level.branches:
        branches = ", ".join(level.branches[:6])
        yield f"{name}: always zero and removed: the branch of {branches}{_more(level.branches)}"
    if level.kernels:
        sizes = [f"{w} ({_size(size)})" for w, size in list(level.kernels.items())[:6]]
        yield f"{name}: smaller kernels: {', '.join(sizes)}{_more(level.kernels)}"
    for stayed in level.stayed:
        yield f"{name}: {stayed.units} of {stayed.axis} constant, kept: {stayed.reason}"


def _size(kernel: Sequence[int]) -> str:
    return "x".join(map(str, kernel))


def _widths(found: Inspection) -> str:
    """Every width that gains nothing over the next multiple."""
    rows = [
        (name, w.layer, w.axis, str(w.width), str(w.padded), f"{100 * w.wasted:.1f} %")
        for name, level in found.levels.items()
        for w in level.wasted
    ]
    if not rows:
        return f"every width is a multiple of {found.multiple}"
    return table(("level", "layer", "axis", "width", "takes as long as", "wasted"), rows)


def _more(shown: Collection[object], limit: int = 6) -> str:
    return f" and {len(shown) - limit} more" if len(shown) > limit else ""
