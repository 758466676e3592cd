"""`nestedge inspect`: the levels of a nested network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.cli.text import json_option, print_json, table
from nestedge.devices.library import load_profile
from nestedge.devices.widths import DeviceMultiple, find_multiple
from nestedge.errors import UsageError
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
@click.option(
    "-d",
    "--device",
    help="List them for the multiple that this device has: a known id, or the path of a profile.",
)
@click.option("-r", "--runtime", help="Of the device; without it the first one of its profile.")
@click.option(
    "-p",
    "--precision",
    help="As in int8; without it the one of the largest multiple, which suits the others.",
)
@json_option
def command(
    model: Path,
    *,
    multiple: int | None,
    device: str | None,
    runtime: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Show the levels of MODEL.nest: what they cost, how they nest, where a width is wasted."""
    known = _known(device, multiple, runtime=runtime, precision=precision)
    found = inspect(load(model), multiple=known.multiple.value if known else multiple or VECTOR)
    if as_json:
        print_json(asdict(found) | {"multiple_of": None if known is None else asdict(known)})
        return
    click.echo(_text(found))
    if known is not None:
        click.echo(f"\n{_origin(known)}")
    if known is not None or multiple is not None:
        click.echo(f"\n{_widths(found)}")


def _known(
    device: str | None, multiple: int | None, *, runtime: str | None, precision: str | None
) -> DeviceMultiple | None:
    """The multiple of the device that was asked for; None where none was.

    Raises:
        UsageError: options that do not go together, or what `find_multiple` refuses.
    """
    if device is None:
        if runtime is not None or precision is not None:
            raise UsageError("--runtime and --precision say which multiple of a --device; give one")
        return None
    if multiple is not None:
        raise UsageError("--device says its own multiple; give no --multiple")
    return find_multiple(load_profile(device), runtime=runtime, precision=precision)


def _origin(known: DeviceMultiple) -> str:
    multiple = known.multiple
    return (
        f"{known.device}, {known.runtime} in {known.precision}: {multiple.value} outputs at once\n"
        f"({multiple.confidence}: {multiple.source})"
    )


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
    if level.outputs != found.outputs:
        yield f"{name}: gives {', '.join(level.outputs)} of {', '.join(found.outputs)}"
    if level.finer:
        finer = ", ".join(f"{n} of {all_} of {a}" for a, (n, all_) in list(level.finer.items())[:6])
        yield f"{name}: {finer}{_more(level.finer)}"
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
