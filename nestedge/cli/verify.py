"""`nestedge verify`: whether artifacts still are their levels."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.cli.text import folder_argument, json_option, print_json, table, threads_option
from nestedge.errors import VerificationError
from nestedge.verify import Verification, verify_folder


@click.command()
@folder_argument
@threads_option
@json_option
def command(folder: Path, threads: int, as_json: bool) -> None:
    """Check the hashes of all artifacts in FOLDER, run them, and compare them with their levels.

    Exit code 6: a file is not the one that was built. 3: an artifact is not its level.
    """
    results = verify_folder(folder, threads=threads)
    if as_json:
        print_json([_to_json(result) for result in results])
    else:
        click.echo(_text(results))
    failed = [result for result in results if not result.passed]
    if failed:
        reasons = "; ".join(f"{result.cell}: {result.reason}" for result in failed)
        raise VerificationError(f"{len(failed)} of {len(results)} failed: {reasons}")


def _to_json(result: Verification) -> dict[str, object]:
    # JSON has no infinity.
    max_error = result.max_error if math.isfinite(result.max_error) else None
    return {**asdict(result), "max_error": max_error}


def _text(results: list[Verification]) -> str:
    header = ("cell", "", "max error", "tolerance", "output", "cases", "runtime")
    rows = [
        (
            result.cell,
            "ok" if result.passed else "FAILED",
            f"{result.max_error:.2e}",
            f"{result.tolerance:.2e}",
            result.output,
            str(result.cases),
            result.runtime_version,
        )
        for result in results
    ]
    return table(header, rows)
