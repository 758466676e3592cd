"""Files of JSON lines that a benchmark appends to, and goes on from when it is run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

Record = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)


def read_records(path: Path, key: Callable[[Record], Key]) -> dict[Key, Record]:
    """The last record of every key; what was cut off while being written is not.

    Args:
        path: of the file, which need not be there yet.
        key: what a record is of.
    """
    found: dict[Key, Record] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[key(record)] = record
    return found
