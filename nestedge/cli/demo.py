"""`nestedge demo`: the whole story on real data, in one command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from nestedge.cli.text import json_option, print_json, table
from nestedge.demo.story import BUILD_FOLDER, DIGIT_FILE, MODEL_FILE, Story, tell
from nestedge.errors import VerificationError
from nestedge.profiling.measure import Measurement
from nestedge.selection import Budget, format_size, parse_duration, parse_size
from nestedge.training import Progress


@click.command()
@click.option(
    "--size", default="250KB", show_default=True, help="The model file is at most this: 250KB."
)
@click.option("--latency", help="The median latency here is at most this: 0.1ms.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of training.")
@json_option
def command(size: str, latency: str | None, seed: int, as_json: bool) -> None:
    """Train, materialise, convert, verify, measure and pick, in the current folder.

    Writes digits.nest and dist/, and ends with a table of what every level costs and gives.
    """
    budget = Budget(
        size_bytes=parse_size(size),
        latency_ms=None if latency is None else parse_duration(latency),
    )
    started = time.monotonic()
    announce = _announcer(started, hidden=as_json)
    progress = None if as_json else _show_training()
    story = tell(Path(), budget=budget, seed=seed, announce=announce, progress=progress)
    if as_json:
        print_json(_document(story))
    else:
        click.echo("\n" + _text(story))
        click.echo(f"\npicked for {budget}: {story.selection.chosen}")
        click.echo(story.selection.reasons[story.selection.chosen])
        click.echo(
            f"{time.monotonic() - started:.0f} s. Next: nestedge inspect {MODEL_FILE}; "
            f"nestedge run {BUILD_FOLDER}/{story.selection.chosen} {DIGIT_FILE}"
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
    found: dict[tuple[str, str], Measurement] = {
        (m.cell, m.quantity): m for m in story.measurements
    }
    rows: list[dict[str, object]] = []
    for cell, artifact in sorted(story.artifacts.items(), key=lambda item: item[1].parameters):
        latency, accuracy = found[cell, "latency_ms"], found[cell, "accuracy_percent"]
        rows.append(
            {
                "cell": cell,
                "parameters": artifact.parameters,
                "macs": artifact.macs,
                "size_bytes": artifact.size_bytes,
                "accuracy_percent": accuracy.value,
                "latency_ms": latency.value,
                "latency_low_ms": latency.low,
                "latency_high_ms": latency.high,
                "max_error": story.verifications[cell].max_error,
                "passed": story.verifications[cell].passed,
                "picked": cell == story.selection.chosen,
            }
        )
    return rows


def _document(story: Story) -> dict[str, object]:
    return {
        "artifacts": _rows(story),
        "picked": story.selection.chosen,
        "reasons": dict(story.selection.reasons),
        "device": story.measurements[0].device,
    }


def _text(story: Story) -> str:
    header = ("level/runtime", "parameters", "file", "accuracy", "latency ms", "verified", "")
    rows = [
        (
            str(row["cell"]),
            f"{row['parameters']:,}",
            format_size(int(str(row["size_bytes"]))),
            f"{row['accuracy_percent']:.1f} %",
            f"{row['latency_ms']:.3f}",
            f"{row['max_error']:.0e}" if row["passed"] else "FAILED",
            "<- picked" if row["picked"] else "",
        )
        for row in _rows(story)
    ]
    device = story.measurements[0].device
    return f"{table(header, rows)}\nlatency: median of one image on {device}, one thread"
