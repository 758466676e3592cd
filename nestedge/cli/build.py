"""`nestedge build`: the matrix of levels, devices and precisions."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nestedge.artifact import read_artifact
from nestedge.building import Built, MaxDrop, Request, build, with_precisions
from nestedge.cli.text import calibration_option, json_option, print_json, progress, table
from nestedge.devices.library import load_profile
from nestedge.errors import NestedgeError, UsageError
from nestedge.matrix import Cell
from nestedge.precisions import PRECISIONS, WeightSteps

_ROUTES = {"litert-torch": "tflite", "onnx2tf": "tflite-onnx2tf"}


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("dist"),
    show_default=True,
    help="Folder of artifacts.",
)
@click.option(
    "-d",
    "--device",
    "devices",
    multiple=True,
    default=("local",),
    show_default=True,
    help="Device profile: an id of 'nestedge devices list', or a .toml.",
)
@click.option("-t", "--target", "runtimes", multiple=True, help="Runtime; all of the devices'.")
@click.option("-l", "--level", "levels", multiple=True, help="Level; all when not given.")
@click.option(
    "-p",
    "--precision",
    "precisions",
    multiple=True,
    help=f"{', '.join(PRECISIONS)}; those of the devices.",
)
@calibration_option
@click.option(
    "--tflite-route",
    type=click.Choice(tuple(_ROUTES)),
    default="litert-torch",
    show_default=True,
    help="What makes TFLite files.",
)
@click.option("--nhwc", is_flag=True, help="TFLite files take images with their channels last.")
@click.option("--ort", is_flag=True, help="ONNX Runtime's files are .ort, for its mobile builds.")
@click.option(
    "--weight-steps",
    type=click.Choice(("family", "level")),
    default="family",
    show_default=True,
    help="What a step of int8 weights is: the same in all levels, which then share them, or each "
    "level's own.",
)
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    help="Points of accuracy that int8 may lose on --data beside its level; of a file that loses "
    "more the worst layers fall back to half precision.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A .npz of 'inputs' and 'labels', for --max-drop.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=min(4, os.cpu_count() or 1),
    show_default=True,
    help="Processes that convert; each takes about 1 GB.",
)
@json_option
def command(
    model: Path,
    output: Path,
    devices: tuple[str, ...],
    runtimes: tuple[str, ...],
    levels: tuple[str, ...],
    precisions: tuple[str, ...],
    calibration: Path | None,
    tflite_route: str,
    nhwc: bool,
    ort: bool,
    weight_steps: WeightSteps,
    max_drop: float | None,
    data: Path | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Write every level of MODEL.nest for every runtime and precision of some devices.

    What is there and up to date stays, so that a build that was interrupted goes on where it was.
    """
    request = Request(
        [with_precisions(load_profile(device), precisions) for device in devices],
        levels=levels,
        runtimes=runtimes,
        precisions=precisions,
        calibration=calibration,
        routes={"tflite": _route(tflite_route, nhwc=nhwc), "onnx": "onnx-ort" if ort else "onnx"},
        weight_steps=weight_steps,
        max_drop=_limit(max_drop, data),
    )
    with progress("building", hidden=as_json) as advance:
        built = build(
            model,
            output,
            request,
            processes=jobs,
            after_each=lambda _, count: advance(count),
        )
    rows = [_row(cell, built, output) for cell in built.asked.values()]
    if as_json:
        print_json(rows)
    else:
        click.echo(_text(rows, output))
    failed = [cell for cell in built.asked.values() if cell.state == "failed"]
    if failed:
        # The reasons stand in what is printed; a matrix of many levels has the same one often.
        reasons = ", ".join(f"{cell.name} ({cell.code})" for cell in failed)
        raise NestedgeError(f"{len(failed)} of {len(rows)} failed: {reasons}")


def _route(name: str, *, nhwc: bool) -> str:
    """The converter that makes TFLite files."""
    if nhwc and name != "litert-torch":
        raise UsageError(f"--nhwc goes with --tflite-route litert-torch, found {name}")
    return "tflite-nhwc" if nhwc else _ROUTES[name]


def _limit(points: float | None, data: Path | None) -> MaxDrop | None:
    """What 8 bits may cost."""
    if points is None and data is None:
        return None
    if points is None:
        raise UsageError("--data goes with --max-drop POINTS; calibration data is --calibration")
    if data is None:
        raise UsageError("--max-drop needs --data: a .npz of 'inputs' and 'labels'")
    return MaxDrop(points, data)


def _row(cell: Cell, built: Built, folder: Path) -> dict[str, object]:
    made = "made" if cell.name in built.made else "up to date"
    row: dict[str, object] = {"cell": cell.name, "state": cell.state, "reason": cell.reason}
    if cell.state == "built":
        artifact = read_artifact(folder / cell.name)
        drop = None if artifact.drop is None else artifact.drop.to_json()
        return {
            **row,
            "state": made,
            "bytes": artifact.size_bytes,
            "file": str(artifact.model),
            "half_layers": list(artifact.half_layers),
            "drop": drop,
            "note": artifact.note,
        }
    parts = {"code": cell.code, "operator": cell.operator, "source": cell.source}
    log = str(folder / cell.log) if cell.log else ""
    return {**row, **parts, "remedy": cell.remedy, "log": log}


def _text(rows: list[dict[str, object]], folder: Path) -> str:
    lines = [
        (
            str(row["cell"]),
            str(row["state"]),
            f"{row['bytes']:,}" if "bytes" in row else "-",
            f"{row['reason']} [{row['code']}]" if row["reason"] else str(row["file"]),
        )
        for row in rows
    ]
    logs = sorted({str(row["log"]) for row in rows if row.get("log")})
    return "\n".join(
        [
            table(("cell", "state", "bytes", "file, or why there is none"), lines),
            *(f"{row['cell']}: {row['note']}" for row in rows if row.get("note")),
            *(f"log: {log}" for log in logs),
            f"in {folder}",
        ]
    )
