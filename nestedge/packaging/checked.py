"""Content that is let through only if it is the expected one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from nestedge.errors import IntegrityError


def checked(chunks: Iterable[bytes], *, sha256: str, limit: int, where: str) -> Iterator[bytes]:
    """The same chunks; after the last one, or the first byte too many, the error if they are wrong.

    Args:
        chunks: the content, piece by piece.
        sha256: the hash that it must have.
        limit: the most bytes that it may have.
        where: what it is, for the error: cell and file.

    Raises:
        IntegrityError: it is longer, or has another hash.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise IntegrityError(
                f"{where}: expected sha256 {sha256} within {limit} bytes, found more"
            )
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise IntegrityError(
            f"{where}: expected sha256 {sha256}, found {digest.hexdigest()} after {size} bytes"
        )
