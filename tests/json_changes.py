"""Changes to JSON documents, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = Any


def put(*path: str | int, to: Json) -> Callable[[Json], None]:
    """A change of the value at a path of keys and indices."""

    def change(data: Json) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return change


def places(data: Json) -> list[tuple[Json, Any]]:
    """Every object and array of a document, with each of its keys or indices."""
    found: list[tuple[Json, Any]] = []
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        found.append((data, key))
        if isinstance(value, (dict, list)):
            found += places(value)
    return found
