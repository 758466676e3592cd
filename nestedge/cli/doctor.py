"""`nestedge doctor`: what works here; for what is missing, the exact line to type."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec

import click

from nestedge.cli.text import json_option, print_json, table
from nestedge.errors import NestedgeError
from nestedge.plugins import converters, load_converter, load_runtime, runtimes
from nestedge.profiling.measurement import describe_device


@dataclass(frozen=True)
class Finding:
    """Whether one part works here.

    Attributes:
        part: as in "runtime onnx".
        works: whether it can be used.
        detail: its version, or the line to type.
    """

    part: str
    works: bool
    detail: str


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Say what works here; for what is missing, the exact line to type."""
    findings = [
        *(_runtime(name) for name in runtimes()),
        *(_converter(name) for name in converters()),
        _images(),
    ]
    system = {"python": platform.python_version(), "device": describe_device()}
    telemetry = _telemetry(findings)
    if as_json:
        parts = [asdict(finding) for finding in findings]
        print_json({**system, "telemetry": telemetry, "parts": parts})
        return
    for name, value in system.items():
        click.echo(f"{name}: {value}")
    rows = [(found.part, "works" if found.works else "missing", found.detail) for found in findings]
    click.echo(table(("part", "state", "detail"), rows))
    click.echo(f"telemetry: {telemetry}")
    if not any(found.works for found in findings if found.part.startswith("runtime")):
        click.echo("no runtime works, so that nothing can be run here")


def _runtime(name: str) -> Finding:
    return _finding(f"runtime {name}", lambda: load_runtime(name).version())


def _converter(name: str) -> Finding:
    return _finding(f"converter {name}", lambda: _converter_detail(name))


def _finding(part: str, version: Callable[[], str]) -> Finding:
    try:
        return Finding(part, works=True, detail=version())
    except NestedgeError as error:
        return Finding(part, works=False, detail=str(error))
    except Exception as error:  # noqa: BLE001 - a framework breaks in its own way; the rest is told
        lines = str(error).splitlines() or [""]
        return Finding(part, works=False, detail=f"{type(error).__name__}: {lines[0]}")


def _converter_detail(name: str) -> str:
    """What a converter uses: its packages, and the program that it runs where it has one."""
    converter = load_converter(name)
    uses = [f"{package} {_version(package)}" for package in getattr(converter, "packages", ())]
    version = getattr(converter, "version", None)
    uses += [version()] if version is not None else []
    if getattr(converter, "checked_by", "") != getattr(converter, "runtime", ""):
        uses.append("the engine is built on the device")
    return ", ".join(uses)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _images() -> Finding:
    if find_spec("PIL") is None:
        return Finding("images", works=False, detail="pip install 'nestedge[image]'")
    return Finding("images", works=True, detail=f"pillow {metadata.version('pillow')}")


def _telemetry(findings: list[Finding]) -> str:
    """What onnxruntime sends: the plug-in forbids it before the import."""
    if not any("onnxruntime" in found.detail for found in findings if found.works):
        return "none: onnxruntime is not in use"
    is_off = os.environ.get("ORT_DISABLE_TELEMETRY") == "1"
    return "that of onnxruntime is off" if is_off else "that of onnxruntime is ON"
