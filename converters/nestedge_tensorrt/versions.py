"""Versions of TensorRT, as its packages and programs write them."""

from __future__ import annotations

import re

from nestedge.errors import NestedgeError

_VERSION = re.compile(r"\d+(\.\d+){1,3}")


def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers that compare, of two parts at least.

    Raises:
        NestedgeError: it is no version.

    >>> version_key("8.6") < version_key("8.6.1.6") < version_key("10.0")
    True
    """
    if not _VERSION.fullmatch(version):
        raise NestedgeError(f"expected a version of TensorRT, as in '10.3.0', found {version!r}")
    return tuple(map(int, version.split(".")))


def is_at_least(version: str, first: str) -> bool:
    """Whether a version is another one, or later.

    >>> is_at_least("10.3.0.30", "8.6"), is_at_least("8.5.2", "8.6")
    (True, False)
    """
    return version_key(version) >= version_key(first)
