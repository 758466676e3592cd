"""`nestedge fetch`: from a repository to a device."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.cli.text import cell_options, json_option, print_json, progress, table
from nestedge.packaging.fetching import AUTO, fetch
from nestedge.packaging.filtering import CellFilter
from nestedge.packaging.shipment import Shipment
from nestedge.selection import format_size


@click.command()
@click.argument("source")
@click.option(
    "-d",
    "--device",
    default=AUTO,
    show_default=True,
    help="Device that SOURCE has something for; auto is this machine.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder, or one that was fetched before: its content is replaced.",
)
@cell_options
@json_option
def command(
    source: str,
    *,
    device: str,
    output: Path,
    runtimes: tuple[str, ...],
    levels: tuple[str, ...],
    precisions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Copy what the repository SOURCE, a folder or a URL, has for a device; check every byte.

    Exit code 6: a file is missing, or is not the one that was shipped.
    """
    with progress("fetching", hidden=as_json) as advance:
        shipment = fetch(
            source,
            device=device,
            destination=output,
            only=CellFilter(levels, runtimes, precisions),
            after_each=lambda _, count: advance(count),
        )
    if as_json:
        print_json(_document(shipment, output))
    else:
        click.echo(_text(shipment))
        click.echo(f"for {shipment.device.id} in {output}; default: {shipment.default}")


def _document(shipment: Shipment, folder: Path) -> dict[str, object]:
    return {
        "device": shipment.device.id,
        "folder": str(folder),
        "cells": {cell.name: cell.size_bytes for cell in shipment.cells},
        "default": shipment.default,
    }


def _text(shipment: Shipment) -> str:
    rows = [(cell.name, format_size(cell.size_bytes)) for cell in shipment.cells]
    return table(("cell", "size"), rows)
