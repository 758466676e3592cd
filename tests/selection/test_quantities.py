from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestedge.errors import UsageError
from nestedge.selection import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "ms"), [("8ms", 8.0), ("0.5s", 500.0), (" 250 us ", 0.25), (".5ms", 0.5)]
)
def test_durations_are_read(text: str, ms: float) -> None:
    assert parse_duration(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["8", "ms", "8 m", "-8ms", "0ms", "1e3ms", "nan ms", "", "8ms x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"duration .*: expected"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("40MB", 40_000_000), ("512KiB", 524_288), ("1.5 kB", 1500), ("1GiB", 2**30), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["40", "40mb", "40Mb", "MB", "0MB", "-1MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"size .*: expected"):
        parse_size(text)


@given(st.integers(1, 10**12))
def test_a_size_is_read_as_it_is_shown(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.001)
