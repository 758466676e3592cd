"""`nestedge verify`: whether artifacts still are their levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.cli.text import folder_argument, json_option, print_json, table, threads_option
from nestedge.errors import VerificationError
from nestedge.matrix import MATRIX_FILE, Cell, read_matrix
from nestedge.verify import Verification, save_verifications, verify_folder


@click.command()
@folder_argument
@click.option(
    "--runtime",
    help="The runtime that runs them, and only those that it opens; without it, each by its own.",
)
@threads_option
@json_option
def command(folder: Path, runtime: str | None, threads: int, as_json: bool) -> None:
    """Check the hashes of the artifacts in FOLDER, run them, and compare them with their levels.

    Keeps the results in verifications.json. Exit code 6: a file is not the one that was built. 3:
    an artifact is not its level.
    """
    results = verify_folder(folder, runtime=runtime, threads=threads)
    unbuilt = _unbuilt(folder)
    # Printed first: a folder that cannot be written to hides no result.
    if as_json:
        print_json(_document(results, unbuilt))
    else:
        click.echo(_text(results, unbuilt))
    save_verifications(folder, results)
    failed = [result for result in results if not result.passed]
    if failed:
        reasons = "; ".join(f"{result.cell}: {result.reason}" for result in failed)
        raise VerificationError(f"{len(failed)} of {len(results)} failed: {reasons}")


def _unbuilt(folder: Path) -> list[Cell]:
    """The cells that a build has no artifacts of, by name; none in what is not a whole build."""
    if not (folder / MATRIX_FILE).is_file():
        return []
    cells = read_matrix(folder).cells
    return [cells[name] for name in sorted(cells) if cells[name].state != "built"]


def _document(results: Sequence[Verification], unbuilt: Sequence[Cell]) -> dict[str, object]:
    return {
        "verifications": [result.to_json() for result in results],
        "unbuilt": [{**asdict(cell), "cell": cell.name} for cell in unbuilt],
    }


def _text(results: Sequence[Verification], unbuilt: Sequence[Cell]) -> str:
    header = ("cell", "", "max error", "tolerance", "output", "cases", "runtime", "note")
    rows = [
        (
            result.cell,
            "ok" if result.passed else "FAILED",
            f"{result.max_error:.2e}",
            f"{result.tolerance:.2e}",
            result.output,
            str(result.cases),
            result.runtime_version,
            result.note if result.passed else result.reason,
        )
        for result in results
    ]
    rows += [(cell.name, cell.state, "-", "-", "", "-", "", cell.reason) for cell in unbuilt]
    return table(header, rows)
