"""TOML from outside, as a document that names the place of what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> Value:
    """The document in a TOML file.

    Raises:
        UsageError: there is no such file.
        FormatError: it is not TOML.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return Value(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (ValueError, RecursionError) as error:
        # Text that is not UTF-8 is a ValueError too.
        raise FormatError(f"{path}: not TOML: {error}") from error
