"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from nestedge.errors import UsageError

_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]+)\s*")


def parse_duration(text: str) -> float:
    """A duration in milliseconds.

    Raises:
        UsageError: it is not a number with a unit, or not above zero.

    >>> parse_duration("8ms"), parse_duration("0.5 s")
    (8.0, 500.0)
    """
    return _parse_quantity(text, "duration", _MILLISECONDS)


def parse_size(text: str) -> int:
    """A size in bytes; kB, MB and GB count in thousands, KiB, MiB and GiB in 1024.

    Raises:
        UsageError: it is not a number with a unit, or not above zero.

    >>> parse_size("40MB"), parse_size("512KiB")
    (40000000, 524288)
    """
    return math.floor(_parse_quantity(text, "size", _BYTES))


def format_size(size_bytes: int) -> str:
    """A size as people read it.

    >>> format_size(950), format_size(1_234_567)
    ('950 B', '1.235 MB')
    """
    for unit in ("GB", "MB", "kB"):
        if size_bytes >= _BYTES[unit]:
            return f"{size_bytes / _BYTES[unit]:.4g} {unit}"
    return f"{size_bytes} B"


def _parse_quantity(text: str, noun: str, units: Mapping[str, float]) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2) not in units:
        known = ", ".join(units)
        raise UsageError(f"{noun} {text!r}: expected a number and a unit of {known}")
    number = float(match.group(1)) * units[match.group(2)]
    if not 0 < number < math.inf:
        raise UsageError(f"{noun} {text!r}: expected more than 0")
    return number
