"""`nestedge devices`: what is known about devices, and about the one that this runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from nestedge.cli.text import json_option, print_json, table
from nestedge.devices.detection import detect, matching_profile
from nestedge.devices.files import known_ids
from nestedge.devices.library import load_profile
from nestedge.devices.profile import DeviceProfile, Figure, FigureValue, Target


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show what is known about devices: their figures, and the source of each."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("list")
@json_option
def list_devices(as_json: bool) -> None:
    """List the known devices and what they run."""
    profiles = [load_profile(device) for device in known_ids()]
    if as_json:
        print_json([profile.to_json() for profile in profiles])
        return
    rows = [
        (profile.id, profile.name, target.runtime, " ".join(target.precisions))
        for profile in profiles
        for target in profile.targets
    ]
    click.echo(table(("id", "name", "runtime", "precisions"), rows))


@command.command("show")
@click.argument("device", metavar="ID")
@json_option
def show_device(device: str, as_json: bool) -> None:
    """Show the figures of a device.

    ID is that of a known one, 'local' for this machine, or the path of a .toml of your own.
    """
    profile = load_profile(device)
    if as_json:
        print_json(profile.to_json())
    else:
        click.echo(_text(profile))


@command.command("detect")
@json_option
def detect_device(as_json: bool) -> None:
    """Show what this machine says of itself.

    It also says which of the known devices this is, if any.
    """
    profile, known = detect(), matching_profile()
    if as_json:
        print_json({"profile": profile.to_json(), "known_as": known})
        return
    click.echo(_text(profile))
    click.echo()
    if known is None:
        click.echo(f"none of the known devices: {', '.join(known_ids())}")
    else:
        click.echo(f"this is {known}: 'nestedge devices show {known}' says what is known about it")


def _text(profile: DeviceProfile) -> str:
    lines = [f"{profile.id}: {profile.name} ({profile.kind})"]
    lines += [f"known by {key}: {' or '.join(values)}" for key, values in profile.match.items()]
    tables = [_runtimes(profile.targets), _multiples(profile.targets), _figures(profile.figures)]
    return "\n".join(lines) + "".join(f"\n\n{rows}" for rows in tables if rows)


def _runtimes(targets: Sequence[Target]) -> str:
    if not targets:
        return "no runtime is installed: pip install 'nestedge[onnx]' or 'nestedge[tflite]'"
    rows = [
        (
            target.runtime,
            " ".join(target.versions),
            " ".join(target.precisions),
            target.confidence,
            target.source,
        )
        for target in targets
    ]
    return table(("runtime", "versions", "precisions", "confidence", "source"), rows)


def _multiples(targets: Sequence[Target]) -> str:
    """What widths are best a multiple of; empty where nothing is known of it."""
    rows = [
        (target.runtime, precision, str(known.value), known.confidence, known.source)
        for target in targets
        for precision, known in target.multiples.items()
    ]
    header = ("runtime", "precision", "outputs at once", "confidence", "source")
    return table(header, rows) if rows else ""


def _figures(figures: Mapping[str, Figure]) -> str:
    rows = [
        (name, _shown(figure.value), figure.confidence, figure.source)
        for name, figure in figures.items()
    ]
    return table(("figure", "value", "confidence", "source"), rows)


def _shown(value: FigureValue) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
