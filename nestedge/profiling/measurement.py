"""A measured number with what it needs to be believed, and the file that keeps such numbers."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from nestedge.documents import Value, json_bytes, latest, read_json, write_whole

MEASUREMENTS_FILE = "measurements.json"
FORMAT = 1
QUANTITIES = ("latency_ms", "load_ms", "accuracy_percent")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A number about one artifact.

    Attributes:
        cell: the artifact.
        model_sha256: of the model file that was measured; one built since was not.
        quantity: what, with its unit: "latency_ms", "load_ms" or "accuracy_percent".
        value: the median, or the share for an accuracy.
        p90: nine in ten samples are at most this; None for an accuracy.
        low: lower end of the 95 % interval of the value.
        high: upper end of it.
        samples: how many there were.
        origin: how it came about: "measured".
        device: what it ran on.
        runtime_version: what ran it.
        threads: CPU threads of the runtime.
        data_sha256: of the data set of an accuracy; None for the rest.
    """

    cell: str
    model_sha256: str
    quantity: str
    value: float
    p90: float | None
    low: float
    high: float
    samples: int
    origin: str
    device: str
    runtime_version: str
    threads: int
    data_sha256: str | None = None


def load_measurements(folder: Path) -> list[Measurement]:
    """The measurements kept in a build folder, by cell and quantity; none where there is no file.

    Raises:
        FormatError: the file is not one of measurements; the message names the field.
    """
    path = folder / MEASUREMENTS_FILE
    if not path.is_file():
        return []
    (measurements,) = read_json(path).versioned(FORMAT, "measurements")
    return sorted((_parse(value) for value in measurements.elements()), key=_key)


def save_measurements(folder: Path, measurements: Iterable[Measurement]) -> Path:
    """Adds measurements to those in a build folder; the file.

    One of the same cell and quantity is replaced, all others stay.

    Raises:
        FormatError: the file that is there is not one of measurements.
        OSError: it cannot be written; the old one stays.
    """
    kept = latest([*load_measurements(folder), *measurements], _key)
    path = folder / MEASUREMENTS_FILE
    records = [asdict(measurement) for measurement in kept]
    write_whole(path, json_bytes({"format": FORMAT, "measurements": records}))
    return path


def describe_device(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The machine that this runs on: CPU model, usable cores, system and architecture."""
    # A process may be confined to some of the cores.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    noun = "core" if cores == 1 else "cores"
    return f"{_cpu_model(cpuinfo)}, {cores} {noun}, {platform.system()} {platform.machine()}"


def _cpu_model(cpuinfo: Path) -> str:
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    # x86 has "model name"; a Raspberry Pi has "Model" at the end, and a phone "Hardware".
    for key in ("model name", "Model", "Hardware"):
        found = re.search(rf"^{key}\s*:\s*(\S.*)$", text, re.MULTILINE)
        if found:
            return " ".join(found.group(1).split())
    return platform.processor() or platform.machine() or "unknown CPU"


def _key(measurement: Measurement) -> tuple[str, str]:
    return measurement.cell, measurement.quantity


def _parse(value: Value) -> Measurement:
    names = tuple(Measurement.__dataclass_fields__)
    field = dict(zip(names, value.fields(*names), strict=True))
    p90, data = field["p90"].optional(), field["data_sha256"].optional()
    measurement = Measurement(
        cell=field["cell"].string(),
        model_sha256=field["model_sha256"].sha256(),
        quantity=field["quantity"].choice(*QUANTITIES),
        value=field["value"].number(),
        p90=None if p90 is None else p90.number(),
        low=field["low"].number(),
        high=field["high"].number(),
        samples=field["samples"].integer(minimum=1),
        origin=field["origin"].choice("measured"),
        device=field["device"].string(),
        runtime_version=field["runtime_version"].string(),
        threads=field["threads"].integer(minimum=1),
        data_sha256=None if data is None else data.sha256(),
    )
    if not measurement.low <= measurement.value <= measurement.high:
        raise field["value"].error(f"a number within {measurement.low}..{measurement.high}")
    return measurement
