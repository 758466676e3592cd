"""`nestedge verify`: whether artifacts still are their levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from nestedge.artifact import Artifact, find_artifacts
from nestedge.cli.text import (
    folder_argument,
    json_option,
    print_json,
    provider_option,
    table,
    threads_option,
)
from nestedge.errors import UsageError, VerificationError
from nestedge.matrix import MATRIX_FILE, Cell, read_matrix
from nestedge.placement import check_share, place_folder
from nestedge.profiling.labelled import LabelledData, read_labelled
from nestedge.verify import (
    Localisation,
    Verification,
    localise_failures,
    save_verifications,
    tolerance_reason,
    verify_folder,
)
from nestedge.verify.localisation import Network


@click.command()
@folder_argument
@click.option(
    "--runtime",
    help="The runtime that runs them, and only those that it opens; without it, each by its own.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A .npz of 'inputs' and 'labels': accuracy, and agreement with single precision.",
)
@click.option(
    "--trace",
    is_flag=True,
    help="Name the worst operator of every cell; without it, of those that fail.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="The .nest: what single precision is compared with, operator by operator; needs torch.",
)
@click.option(
    "--require-placement",
    "share",
    type=click.FloatRange(0, 1),
    help="Share of the MACs that must run on the accelerator, as in 0.98: see placement.",
)
@provider_option
@threads_option
@json_option
def command(
    folder: Path,
    *,
    runtime: str | None,
    data: Path | None,
    trace: bool,
    model: Path | None,
    share: float | None,
    provider: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Check the hashes of the artifacts in FOLDER, run them, and compare them with their levels.

    Of what is not its level, the operator at which the error arises is named. Keeps the results in
    verifications.json. Exit code 6: a file is not the one that was built. 3: an artifact is not
    its level. 4: the provider cannot be started, or all are their levels and too much of one runs
    elsewhere than on the accelerator.
    """
    network = None if model is None else _network(model)
    results = _verified(folder, data, runtime=runtime, provider=provider, threads=threads)
    results = localise_failures(
        folder, results, provider=provider, threads=threads, all_cells=trace, network=network
    )
    artifacts = {artifact.cell: artifact for artifact in find_artifacts(folder)}
    unbuilt = _unbuilt(folder)
    # Printed first: a folder that cannot be written to hides no result.
    if as_json:
        print_json(_document(results, unbuilt, artifacts))
    else:
        click.echo(_text(results, unbuilt))
    save_verifications(folder, results)
    failed = [result for result in results if not result.passed]
    if failed:
        reasons = "; ".join(f"{result.cell}: {result.reason}" for result in failed)
        raise VerificationError(f"{len(failed)} of {len(results)} failed: {reasons}")
    if share is not None:
        placements = place_folder(folder, runtime=runtime, accelerator=provider, threads=threads)
        check_share(placements, share)


def _verified(
    folder: Path, data: Path | None, *, runtime: str | None, provider: str | None, threads: int
) -> list[Verification]:
    given: LabelledData | None = None if data is None else read_labelled(data)
    try:
        return verify_folder(
            folder, runtime=runtime, provider=provider, threads=threads, data=given
        )
    except ValueError as error:
        raise UsageError(f"{data}: {error}") from error


def _network(path: Path) -> Network:
    """Runs the levels of a .nest by torch."""
    # What runs on a device has no torch.
    from nestedge.building.values import level_values
    from nestedge.nestfile import load

    nested = load(path)
    return lambda level, inputs: level_values(nested, level, inputs)


def _unbuilt(folder: Path) -> list[Cell]:
    """The cells that a build has no artifacts of, by name; none in what is not a whole build."""
    if not (folder / MATRIX_FILE).is_file():
        return []
    cells = read_matrix(folder).cells
    return [cells[name] for name in sorted(cells) if cells[name].state != "built"]


def _document(
    results: Sequence[Verification],
    unbuilt: Sequence[Cell],
    artifacts: Mapping[str, Artifact],
) -> dict[str, object]:
    return {
        "verifications": [
            {**result.to_json(), "tolerance_reason": tolerance_reason(artifacts[result.cell])}
            for result in results
        ],
        "unbuilt": [{**asdict(cell), "cell": cell.name} for cell in unbuilt],
    }


def _text(results: Sequence[Verification], unbuilt: Sequence[Cell]) -> str:
    on_data = ("accuracy", "fp32", "agree") if any(result.data for result in results) else ()
    header = (
        *("cell", "", "max error", "tolerance", "cosine", "PSNR dB", "top-1", *on_data),
        *("output", "cases", "runtime", "note"),
    )
    rows = [
        (
            *(result.cell, "ok" if result.passed else "FAILED"),
            *(f"{result.max_error:.2e}", f"{result.tolerance:.2e}", *_figures(result)),
            *(_answers(result) if on_data else ()),
            *(result.output, str(result.cases), result.runtime_version),
            result.note if result.passed else result.reason,
        )
        for result in results
    ]
    blank = ("-",) * len((*on_data, "cosine", "PSNR dB", "top-1"))
    rows += [
        (cell.name, cell.state, "-", "-", *blank, "", "-", "", cell.reason) for cell in unbuilt
    ]
    return "\n".join([table(header, rows), *_places(results)])


def _figures(result: Verification) -> tuple[str, ...]:
    found = result.closeness
    if found is None:
        return "-", "-", "-"
    return (
        "-" if found.cosine is None else f"{found.cosine:.6f}",
        # What differs nowhere has no noise.
        "-" if found.psnr_db is None else f"{found.psnr_db:.1f}",
        "-" if found.top1_agreement is None else f"{found.top1_agreement:.0%}",
    )


def _answers(result: Verification) -> tuple[str, ...]:
    found = result.data
    if found is None:
        return "-", "-", "-"
    others = (found.exact_accuracy_percent, found.agreement_percent)
    return tuple(
        "-" if number is None else f"{number:.2f}" for number in (found.accuracy_percent, *others)
    )


def _places(results: Sequence[Verification]) -> Iterator[str]:
    """A line for every cell that was looked into."""
    for result in results:
        if result.localisation is not None:
            yield f"{result.cell}: {_place(result.localisation)}"


def _place(found: Localisation) -> str:
    worst = found.operator
    if worst is None:
        return f"worst operator unknown: {found.note}"
    where = f" ({worst.module})" if worst.module else ""
    among = f", one of {' > '.join(worst.between)}" if worst.between else ""
    text = (
        f"worst operator {worst.kind} {worst.name!r}{where}{among}: error {worst.input_error:.2g} "
        f"before it, {worst.output_error:.2g} behind it, at {worst.value!r}; beside "
        f"{found.reference}, {found.compared} of {found.values} values compared"
    )
    return f"{text}; {found.note}" if found.note else text
