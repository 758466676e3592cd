"""`nestedge demo`: the whole story on real data, in one command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from nestedge.cli.budget import parse_budget
from nestedge.cli.text import json_option, print_json, table
from nestedge.demo.story import (
    DEVICE_FOLDER,
    DEVICES,
    IMAGE_FILE,
    MODEL_FILE,
    REPORT_FILE,
    Story,
    tell,
)
from nestedge.errors import VerificationError
from nestedge.selection import format_size
from nestedge.training import Progress


@click.command()
@click.option(
    "--size", default="250KB", show_default=True, help="The model file is at most this: 250KB."
)
@click.option("--latency", help="The median latency here is at most this: 0.1ms.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of training.")
@json_option
def command(size: str, latency: str | None, seed: int, as_json: bool) -> None:
    """Train, build for four devices, verify, measure, pick, ship, fetch and run.

    Writes digits.nest, dist/, report.html, repo/ and device/ into the current folder, and ends
    with a table of what every level costs and gives in every precision.
    """
    budget = parse_budget(size=size, latency=latency)
    started = time.monotonic()
    announce = _announcer(started, hidden=as_json)
    progress = None if as_json else _show_training()
    story = tell(Path(), budget=budget, seed=seed, announce=announce, progress=progress)
    if as_json:
        print_json(_document(story))
    else:
        click.echo(f"\n{_matrix(story)}\n\npicked for {budget}:\n{_picks(story)}\n")
        said = ", ".join(f"{answer.cell}: {answer.labels[0].label}" for answer in story.answers)
        click.echo(f"{IMAGE_FILE}, run by what was shipped for {DEVICES[-1]}: {said}")
        click.echo(
            f"{time.monotonic() - started:.0f} s. Next: open {REPORT_FILE}; "
            f"nestedge inspect {MODEL_FILE}; nestedge run {DEVICE_FOLDER} {IMAGE_FILE}"
        )
    failed = [cell for cell, result in story.verifications.items() if not result.passed]
    if failed:
        raise VerificationError(f"not their levels: {', '.join(failed)}")


def _announcer(started: float, *, hidden: bool) -> Callable[[str], None]:
    def announce(line: str) -> None:
        if not hidden:
            click.echo(f"[{time.monotonic() - started:4.0f} s] {line}")

    return announce


def _show_training() -> Callable[[Progress], None]:
    """A line an epoch; on a terminal also the steps within one."""
    last: list[tuple[int, int]] = [(0, 0)]

    def show(report: Progress) -> None:
        # The loop reports the last step of an epoch once more when its accuracies are known.
        evaluated = last[0] == (report.epoch, report.step)
        last[0] = (report.epoch, report.step)
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        if evaluated:
            accuracies = ", ".join(f"{k} {v:.1f} %" for k, v in report.accuracies.items())
            left = "" if report.seconds_left is None else f"  {report.seconds_left:.0f} s left"
            click.echo(
                f"{clear}  epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  "
                f"test accuracy: {accuracies}{left}"
            )
        elif clear:
            click.echo(f"{clear}  epoch {report.epoch}: step {report.step}", nl=False)

    return show


def _rows(story: Story) -> list[dict[str, object]]:
    found = {(m.cell, m.quantity): m for m in story.measurements}
    rows: list[dict[str, object]] = []
    order = sorted(story.artifacts.values(), key=lambda artifact: artifact.parameters)
    for artifact in order:
        latency = found.get((artifact.cell, "latency_ms"))
        result = story.verifications[artifact.cell]
        rows.append(
            {
                "cell": artifact.cell,
                "parameters": artifact.parameters,
                "macs": artifact.macs,
                "size_bytes": artifact.size_bytes,
                "peak_memory_bytes": artifact.peak_memory_bytes,
                "accuracy_percent": found[artifact.cell, "accuracy_percent"].value,
                "latency_ms": None if latency is None else latency.value,
                "latency_low_ms": None if latency is None else latency.low,
                "latency_high_ms": None if latency is None else latency.high,
                "max_error": result.max_error,
                "passed": result.passed,
                "note": result.note,
            }
        )
    return rows


def _document(story: Story) -> dict[str, object]:
    return {
        "artifacts": _rows(story),
        "picked": {
            device: {
                "cell": found.selection.chosen,
                "reasons": dict(found.selection.reasons),
                "notes": list(found.selection.notes),
            }
            for device, found in story.selections.items()
        },
        "answers": [
            {"cell": answer.cell, "label": answer.labels[0].label} for answer in story.answers
        ],
        "measured_on": story.measurements[0].device,
    }


def _matrix(story: Story) -> str:
    header = ("cell", "parameters", "file", "accuracy", "latency ms", "error", "verified")
    lines = [
        (
            str(row["cell"]),
            f"{row['parameters']:,}",
            format_size(int(str(row["size_bytes"]))),
            f"{row['accuracy_percent']:.1f} %",
            "unmeasured" if row["latency_ms"] is None else f"{row['latency_ms']:.3f}",
            f"{row['max_error']:.0e}",
            ("its ONNX" if row["note"] else "yes") if row["passed"] else "FAILED",
        )
        for row in _rows(story)
    ]
    where = story.measurements[0].device
    return (
        f"{table(header, lines)}\n"
        f"latency: median of one image on {where}, one thread; an engine of TensorRT can only be\n"
        "built, verified and measured on its board: what is said of it is about its ONNX"
    )


def _picks(story: Story) -> str:
    header = ("device", "picked", "file", "accuracy", "latency ms")
    lines = []
    for device, found in story.selections.items():
        (chosen,) = [c for c in found.candidates if c.cell == found.selection.chosen]
        accuracy, latency = chosen.accuracy, chosen.latency
        lines.append(
            (
                device,
                chosen.cell,
                format_size(chosen.size_bytes),
                "unmeasured" if accuracy is None else f"{accuracy.value:.1f} %",
                "unmeasured" if latency is None else f"{latency.value:.3f}",
            )
        )
    return table(header, lines)
