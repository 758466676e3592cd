"""Files from outside: read strictly, with errors that name the place, and written whole.

JSON is untrusted text here: unknown keys, missing keys, duplicate keys and NaN are all refused, and
every error says where in the document it stands, as in
`artifact.json: files.model.onnx.sha256: expected 64 hex digits, found 'abc'`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nestedge.errors import FormatError, UsageError

Option = TypeVar("Option", bound=str)
Record = TypeVar("Record")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN = 60
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Value:
    """A value inside a JSON document, and where it stands.

    Attributes:
        data: what json.loads gave.
        document: how the document is called in errors.
        path: keys and indices that lead to the value, as in "files.model.onnx" or "inputs[0].name".
    """

    data: object
    document: str
    path: str = ""

    @property
    def where(self) -> str:
        """The place as errors name it."""
        return f"{self.document}: {self.path}" if self.path else self.document

    def error(self, expected: str) -> FormatError:
        """The error that says what was expected here, and what was found instead."""
        found = json.dumps(self.data)
        shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
        return FormatError(f"{self.where}: expected {expected}, found {shown}")

    def fields(self, *names: str) -> tuple[Value, ...]:
        """The values of an object that has exactly the keys `names`, in their order."""
        members = self.members()
        for name in names:
            if name not in members:
                raise FormatError(f"{_joined(self.where, self.path, name)}: missing")
        for name, member in members.items():
            if name not in names:
                raise FormatError(f"{member.where}: unknown; expected {', '.join(names)}")
        return tuple(members[name] for name in names)

    def versioned(self, version: int, *names: str) -> tuple[Value, ...]:
        """The values of an object that has the keys `names`, and "format", which is `version`.

        The version is looked at first: a document of another one may have other keys.
        """
        members = self.members()
        if "format" in members and members["format"].data != version:
            raise members["format"].error(f"{version}: another version of nestedge wrote this")
        return self.fields("format", *names)[1:]

    def version(self, newest: int, *older: int) -> int:
        """Which of some versions an object says in "format": an older one, or else the newest.

        What is none of them is for `versioned` to refuse.
        """
        said = self.members().get("format", self).data
        return next((version for version in older if said == version), newest)

    def members(self) -> dict[str, Value]:
        """The values of an object whose keys are free."""
        if not isinstance(self.data, dict):
            raise self.error("an object")
        prefix = f"{self.path}." if self.path else ""
        return {
            key: Value(data, self.document, f"{prefix}{key}") for key, data in self.data.items()
        }

    def elements(self) -> tuple[Value, ...]:
        """The values of an array."""
        if not isinstance(self.data, list):
            raise self.error("an array")
        return tuple(
            Value(data, self.document, f"{self.path}[{index}]")
            for index, data in enumerate(self.data)
        )

    def optional(self) -> Value | None:
        """The value itself, or None where the document says null."""
        return None if self.data is None else self

    def string(self) -> str:
        """A string."""
        if not isinstance(self.data, str):
            raise self.error("a string")
        return self.data

    def name(self) -> str:
        """A string that is safe as the name of one file: no separators, no leading dot."""
        if not isinstance(self.data, str) or not _NAME.fullmatch(self.data):
            raise self.error("a plain name of letters, digits, '.', '_', '+' and '-'")
        return self.data

    def sha256(self) -> str:
        """A SHA-256 in lower-case hex."""
        if not isinstance(self.data, str) or not _SHA256.fullmatch(self.data):
            raise self.error("64 hex digits")
        return self.data

    def choice(self, *options: Option) -> Option:
        """One of a few strings."""
        for option in options:
            if self.data == option:
                return option
        raise self.error(" or ".join(f'"{option}"' for option in options))

    def integer(self, *, minimum: int) -> int:
        """An integer of at least `minimum`."""
        # JSON's true is Python's 1.
        if not isinstance(self.data, int) or isinstance(self.data, bool) or self.data < minimum:
            raise self.error(f"an integer of at least {minimum}")
        return self.data

    def number(self) -> float:
        """A finite number."""
        if isinstance(self.data, bool) or not isinstance(self.data, (int, float)):
            raise self.error("a number")
        try:
            number = float(self.data)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.error("a finite number")
        return number


def read_json(path: Path) -> Value:
    """The whole document at `path`.

    Raises:
        FormatError: it is not JSON; the message names the line.
        OSError: it cannot be read.
    """
    return parse_json(path.read_bytes(), document=str(path))


def parse_json(text: bytes, *, document: str) -> Value:
    """The document in `text`, called `document` in errors.

    >>> parse_json(b'{"a": {"b": 1}}', document="x.json").fields("a")[0].fields("b")[0].path
    'a.b'
    """
    try:
        data = json.loads(
            text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise FormatError(f"{document}: not JSON: {error.msg} at {where}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"{document}: not JSON: {error}") from error
    return Value(data, document)


def json_bytes(document: object) -> bytes:
    """A document as nestedge writes it: sorted keys, one space of indent, a newline at the end."""
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves either the old content or the new, never a part.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
    except OSError as error:
        # Whoever reads of it knows nothing of the other file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until the disk has it: a rename must not overtake the content."""
    write_chunks(path, (content,))


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """As `write_synced`, piece by piece.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def latest(records: Iterable[Record], key: Callable[[Record], tuple[str, str]]) -> list[Record]:
    """The last record of every key, in the order of the keys."""
    found = {key(record): record for record in records}
    return [found[name] for name in sorted(found)]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex; the file need not fit into memory.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of a .npz by name, or that of a .npy under the name "".

    Raises:
        UsageError: there is no such file.
        FormatError: it is neither, is truncated, or holds pickled objects, which are never loaded.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        # numpy would try to unpickle whatever is neither; it is told not to.
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{path}: not a .npy or .npz of plain arrays: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Writes a .npz, whole.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    content = io.BytesIO()
    # numpy.savez takes names as keywords, and has some of its own.
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.save(member, array, allow_pickle=False)
    write_whole(path, content.getvalue())


def _joined(where: str, path: str, name: str) -> str:
    return f"{where}.{name}" if path else f"{where}: {name}"


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")
