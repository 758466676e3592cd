from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nestedge.documents import (
    Value,
    json_bytes,
    latest,
    parse_json,
    read_arrays,
    write_arrays,
    write_whole,
)
from nestedge.errors import FormatError, UsageError


def _read(text: bytes) -> Value:
    return parse_json(text, document="x.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "x.json: not JSON: .* at line 1, column 2"),
        (b"", "x.json: not JSON"),
        (b"\xff{}", "x.json: not JSON: .*utf-8"),
        (b"[" * 100_000, "x.json: not JSON"),
        (b'{"a": 1, "a": 2}', "x.json: not JSON: the key 'a' stands twice"),
        (b'{"a": NaN}', "x.json: not JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
    ],
    ids=["truncated", "empty", "not utf-8", "deep", "duplicate", "nan", "infinity"],
)
def test_what_is_not_strict_json_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        _read(text)


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        (b'{"a": 1}', lambda v: v.fields("a", "b"), r"^x\.json: b: missing$"),
        (b'{"a": {"b": 1}}', lambda v: v.fields("a")[0].fields("b", "c"), r"^x\.json: a\.c: miss"),
        (b'{"a": 1, "z": 2}', lambda v: v.fields("a"), r"^x\.json: z: unknown; expected a$"),
        (b"[1]", lambda v: v.fields("a"), r"^x\.json: expected an object, found \[1\]$"),
        (b'{"a": 1}', lambda v: v.elements(), r"^x\.json: expected an array, found"),
        (
            b'[["x"]]',
            lambda v: v.elements()[0].elements()[0].number(),
            r"json: \[0\]\[0\]: exp",
        ),
        (b"true", lambda v: v.integer(minimum=0), "expected an integer of at least 0, found true"),
        (b"-1", lambda v: v.integer(minimum=0), "expected an integer of at least 0, found -1"),
        (b"1.0", lambda v: v.integer(minimum=0), "expected an integer"),
        (b"true", lambda v: v.number(), "expected a number, found true"),
        (b"1e999", lambda v: v.number(), "expected a finite number"),
        (b"9" * 400, lambda v: v.number(), r"expected a finite number, found 9{60}\.\.\.$"),
        (b"1", lambda v: v.string(), "expected a string, found 1"),
        (b'"c"', lambda v: v.choice("a", "b"), 'expected "a" or "b", found "c"'),
        (b'"abc"', lambda v: v.sha256(), 'expected 64 hex digits, found "abc"'),
        (b'"../x"', lambda v: v.name(), r'expected a plain name .*, found "\.\./x"'),
        (b'".x"', lambda v: v.name(), "expected a plain name"),
        (b'"a/b"', lambda v: v.name(), "expected a plain name"),
        (b'"a\\\\b"', lambda v: v.name(), "expected a plain name"),
        (b'"a\\n"', lambda v: v.name(), "expected a plain name"),
        (b'""', lambda v: v.name(), "expected a plain name"),
    ],
)
def test_an_error_names_the_place_and_what_was_expected(
    text: bytes, read: Callable[[Value], object], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        read(_read(text))


def test_null_is_an_optional_value() -> None:
    assert _read(b"null").optional() is None
    assert _read(b"0").optional() is not None


def test_documents_are_written_with_sorted_keys_and_a_newline() -> None:
    assert json_bytes({"b": 1, "a": "é"}) == '{\n "a": "é",\n "b": 1\n}\n'.encode()


def test_a_failed_write_leaves_the_old_content_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_whole(path, b"old")
    # The name of the temporary file is taken by a folder, so that writing it fails.
    blocked = tmp_path / f".x.json.{os.getpid()}.tmp"
    blocked.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    blocked.rmdir()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["x.json"]


def test_arrays_of_any_name_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = {"file": np.arange(3), "a/b": np.ones((2, 2), np.float32), "scalar": np.array(1.5)}
    write_arrays(path, arrays)
    found = read_arrays(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_single_array_has_no_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3))
    assert list(read_arrays(tmp_path / "x.npy")) == [""]


def _pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _pickled_member(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([{"a": 1}], dtype=object))


def _truncated_npy(path: Path) -> None:
    np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:200])


def _truncated_npz(path: Path) -> None:
    write_arrays(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    "write",
    [
        _pickled,
        _pickled_member,
        _truncated_npy,
        _truncated_npz,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"hello"),
        lambda path: path.write_bytes(b"PK\x03\x04 not a zip"),
    ],
    ids=["pickle", "pickle in zip", "cut npy", "cut npz", "empty", "text", "no zip"],
)
def test_what_is_not_plain_arrays_is_refused(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "x.npy"
    write(path)
    with pytest.raises(FormatError, match=r"x\.npy: not a \.npy or \.npz of plain arrays"):
        read_arrays(path)


def test_a_missing_file_of_arrays_is_an_error_of_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.npy: no such file"):
        read_arrays(tmp_path / "x.npy")


def test_an_error_of_writing_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "x.json"
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(path, b"new")
    assert caught.value.filename == str(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as found:
        write_whole(tmp_path / "folder", b"new")
    assert found.value.filename == str(tmp_path / "folder")


def test_the_version_of_a_document_is_looked_at_before_its_keys() -> None:
    value = _read(b'{"format": 2, "shiny": 1}')
    with pytest.raises(FormatError, match="format: expected 1: another version of nestedge wrote"):
        value.versioned(1, "cells")
    (cells,) = _read(b'{"format": 1, "cells": []}').versioned(1, "cells")
    assert cells.path == "cells"


@pytest.mark.parametrize(
    ("data", "version"),
    [({"format": 1}, 1), ({"format": 3}, 3), ({"format": 9}, 3), ({"format": "1"}, 3), ({}, 3)],
    ids=["older", "newest", "unknown", "text", "none"],
)
def test_a_document_is_read_as_the_older_version_that_it_says_or_as_the_newest(
    data: dict[str, object], version: int
) -> None:
    assert Value(data, "x.json").version(3, 1, 2) == version


def test_the_latest_record_of_a_key_is_kept_in_the_order_of_keys() -> None:
    records = [("b", "x", 1), ("a", "y", 2), ("b", "x", 3)]
    assert latest(records, lambda record: record[:2]) == [("a", "y", 2), ("b", "x", 3)]
