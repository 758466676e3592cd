"""A zip that is the same bytes for the same content, and that is read without trust."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

from nestedge.errors import FormatError, UsageError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = b"PK\x03\x04"
_UNIX = 3
_ENCRYPTED = 0x1


def archive_bytes(entries: Mapping[str, bytes]) -> bytes:
    """A zip of the entries, in their order: stored as they are, with neither time nor owner."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            # Python would write down the operating system that it runs on.
            info.create_system = _UNIX
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return content.getvalue()


class Archive:
    """A zip from outside, of which only the entries that are asked for are ever read.

    Use as a context manager.

    Args:
        path: of the file.
        kind: what such a file is called in errors.

    Raises:
        UsageError: there is no such file.
        FormatError: it is not a whole zip.
    """

    def __init__(self, path: Path, *, kind: str) -> None:
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        self.path = path
        self.kind = kind
        with path.open("rb") as file:
            if file.read(len(_LOCAL_HEADER)) != _LOCAL_HEADER:
                raise FormatError(f"{path}: not a {kind}, which is a zip")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise FormatError(f"{path}: truncated or damaged: {error}") from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._zip.namelist()

    def check_names(self, expected: Collection[str]) -> None:
        """Check that the zip has exactly the entries `expected`.

        Raises:
            FormatError: an entry is missing, does not belong or stands twice; the message names it.
        """
        names = self._zip.namelist()
        for index, name in enumerate(names):
            if name not in expected:
                raise FormatError(f"{self.path}: holds {name!r}, which no {self.kind} has")
            if name in names[:index]:
                raise FormatError(f"{self.path}: holds {name!r} twice")
        for name in expected:
            if name not in names:
                raise FormatError(f"{self.path}: {name!r} is missing")

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """The content of an entry.

        Args:
            name: of the entry.
            limit: the most bytes that it may have.

        Raises:
            FormatError: it is compressed, encrypted, too large or damaged.
        """
        info = self._zip.getinfo(name)
        where = f"{self.path}: {name}"
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise FormatError(f"{where}: compressed; a {self.kind} stores its entries as they are")
        if info.flag_bits & _ENCRYPTED:
            raise FormatError(f"{where}: encrypted")
        if limit is not None and info.file_size > limit:
            raise FormatError(f"{where}: expected at most {limit} bytes, found {info.file_size}")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OSError) as error:
            raise FormatError(f"{where}: truncated or damaged: {error}") from error
