"""Folders that are written whole, as `nestedge.documents.write_whole` writes a file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` when the block ends well.

    It stands beside `folder`, so that taking the place is a rename: a block that fails, or a crash
    on the way, leaves the old content. What a crashed process left is removed; two processes that
    write the same folder at once would take each other for crashed, and both fail.

    Raises:
        OSError: the disk is full, or the parent cannot be written to; the old content stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _recover(folder)
    temporary, replaced = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{ending}") for ending in ("tmp", "old")
    )
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            folder.replace(replaced)
        temporary.replace(folder)
    finally:
        # An interrupt between the two renames puts the old content back.
        if replaced.exists() and not folder.exists():
            replaced.replace(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Removes what crashed processes left beside `folder`; old content goes back to its place."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.(tmp|old)")
    for path in sorted(folder.parent.iterdir()):
        found = pattern.fullmatch(path.name)
        if found and found.group(1) == "old" and not folder.exists():
            path.replace(folder)
        elif found:
            shutil.rmtree(path, ignore_errors=True)
