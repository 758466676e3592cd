"""`nestedge ship`: from a build to a repository."""

from __future__ import annotations

from pathlib import Path

import click

from nestedge.cli.text import cell_options, folder_argument, json_option, print_json, table
from nestedge.matrix import read_matrix
from nestedge.packaging.filtering import CellFilter
from nestedge.packaging.shipment import Shipment
from nestedge.packaging.shipping import ship
from nestedge.selection import format_size


@click.command()
@folder_argument
@click.option(
    "--to",
    "repository",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the repository; it is made where there is none.",
)
@click.option("-d", "--device", "devices", multiple=True, help="Device; all that FOLDER is for.")
@click.option(
    "--default", help="Cell that runs where nobody says; if not given, of the largest level."
)
@cell_options
@json_option
def command(
    folder: Path,
    *,
    repository: Path,
    devices: tuple[str, ...],
    default: str | None,
    runtimes: tuple[str, ...],
    levels: tuple[str, ...],
    precisions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Copy what was built and verified in FOLDER to a repository, for devices to fetch.

    Exit code 3: a cell has not passed 'nestedge verify'. 6: a file is not the one that was built.
    """
    wanted = devices or tuple(read_matrix(folder).devices)
    shipments = ship(
        folder,
        repository,
        devices=wanted,
        default=None if default is None else dict.fromkeys(wanted, default),
        only=CellFilter(levels, runtimes, precisions),
    )
    if as_json:
        print_json([_document(shipment) for shipment in shipments])
    else:
        click.echo(_text(shipments))
        click.echo(f"in {repository}")


def _document(shipment: Shipment) -> dict[str, object]:
    return {
        "device": shipment.device.id,
        "folder": shipment.folder,
        "sha256": shipment.sha256,
        "bytes": shipment.size_bytes,
        "cells": [cell.name for cell in shipment.cells],
        "default": shipment.default,
    }


def _text(shipments: list[Shipment]) -> str:
    rows = [
        (
            shipment.device.id,
            str(len(shipment.cells)),
            format_size(shipment.size_bytes),
            shipment.default,
            shipment.folder,
        )
        for shipment in shipments
    ]
    return table(("device", "cells", "size", "default", "folder"), rows)
