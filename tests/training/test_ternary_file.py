from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestedge.documents import json_bytes
from nestedge.errors import FormatError, UsageError
from nestedge.training.ternary import TernaryLayer, TernaryStart
from nestedge.training.ternary_file import (
    read_start,
    start_bytes,
    start_from_bytes,
    start_sizes,
    write_start,
)

PREFIX = "<8sIQI"


def _layer(
    name: str,
    shape: tuple[int, ...],
    positions: Sequence[int],
    *,
    means: tuple[float, float] = (0.25, -0.5),
    seed: int = 0,
) -> TernaryLayer:
    signs = np.random.default_rng(seed).random(len(positions)) < 0.5
    positive, negative = map(np.float32, means)
    return TernaryLayer(name, shape, positive, negative, np.array(positions, dtype=np.int64), signs)


def _random(name: str, shape: tuple[int, ...], density: float, *, seed: int = 0) -> TernaryLayer:
    alive = np.random.default_rng(seed).random(math.prod(shape)) < density
    return _layer(name, shape, np.flatnonzero(alive).tolist(), seed=seed)


START = TernaryStart(
    (
        _layer("first.weight", (2, 3), [0, 2, 5], means=(0.1, -0.2)),
        _layer("last.weight", (40, 50), [255, 256, 767, 1999], means=(0.3, 0.0), seed=1),
    )
)


def _assert_equal(found: TernaryStart, expected: TernaryStart) -> None:
    for layer, twin in zip(found.layers, expected.layers, strict=True):
        assert (layer.name, layer.shape) == (twin.name, twin.shape)
        assert layer.positive.tobytes() == twin.positive.tobytes()
        assert layer.negative.tobytes() == twin.negative.tobytes()
        np.testing.assert_array_equal(layer.positions, twin.positions)
        np.testing.assert_array_equal(layer.signs, twin.signs)
        assert (layer.positions.dtype, layer.signs.dtype) == (np.dtype("int64"), np.dtype("bool"))


LAYERS = {
    "one-weight": _layer("a", (1,), [0]),
    "first-of-many": _layer("a", (70000,), [0]),
    "last-of-many": _layer("a", (70000,), [69999]),
    "runs-of-255": _layer("a", (2000,), [254, 255, 511, 766, 1277]),
    "full": _layer("a", (3, 4, 5), range(60)),
    "sparse": _random("a", (512, 512, 3, 3), 0.001),
    "half": _random("a", (64, 64), 0.5),
    "scalar-shape": _layer("a", (), [0]),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_start_is_read_as_it_was_written(layer: TernaryLayer, tmp_path: Path) -> None:
    start = TernaryStart((layer, *START.layers))
    write_start(start, tmp_path / "start")
    _assert_equal(read_start(tmp_path / "start"), start)
    assert start_sizes(start).file == (tmp_path / "start").stat().st_size


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 1500), min_size=1), min_size=1, max_size=4))
def test_any_pattern_is_read_as_it_was_written(patterns: list[set[int]]) -> None:
    layers = [_layer(f"layer{i}", (19, 79), sorted(p)) for i, p in enumerate(patterns)]
    start = TernaryStart(tuple(layers))
    _assert_equal(start_from_bytes(start_bytes(start), document="start"), start)


def test_a_file_holds_two_numbers_per_layer() -> None:
    content = start_bytes(START)
    *_, size = struct.unpack_from(PREFIX, content)
    offset = struct.calcsize(PREFIX) + size
    numbers = np.frombuffer(content, dtype="<f4", count=4, offset=offset)
    assert numbers.tolist() == np.array([0.1, -0.2, 0.3, 0.0], dtype=np.float32).tolist()
    sizes = start_sizes(START)
    assert sizes.numbers == 4 * 2 * len(START.layers)
    # What stands in the file beside them is names, shapes and counts, the pattern, and the hash.
    assert sizes.file == offset + sizes.numbers + sizes.pattern + 32
    assert sizes.dense == 4 * (6 + 2000)


def _entropy(layer: TernaryLayer) -> float:
    """Bytes of a random mask of this density, and of its signs."""
    weights, alive = math.prod(layer.shape), len(layer.positions)
    share = alive / weights
    bits = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return (weights * bits + alive) / 8


@pytest.mark.parametrize(("density", "above"), [(0.02, 0.01), (0.001, 0.15), (0.2, 0.015)])
def test_a_random_pattern_is_near_its_entropy(density: float, above: float) -> None:
    layer = _random("weight", (512, 512, 3), density)
    pattern = start_sizes(TernaryStart((layer,))).pattern
    assert _entropy(layer) * 0.99 < pattern < _entropy(layer) * (1 + above)


def test_a_pattern_with_structure_is_below_its_entropy() -> None:
    mask = np.zeros((64, 64, 9), dtype=bool)
    mask[:8, :8] = True
    layer = _layer("weight", mask.shape, np.flatnonzero(mask).tolist())
    assert start_sizes(TernaryStart((layer,))).pattern < _entropy(layer) / 4


# Written by version 1; never to be edited.
GOLDEN = """
TkVTVFRFUk4BAAAA4gAAAAAAAAB8AAAAeNqr5lJQykmsTC0qVrJSiOZSUKgGYgWlvMTcVKCAUlpmUXGJXnlqZnpGiZIOWKog
vzizJDM/D6TB0BAiVpyRWJAKNUBBwQgsqGAMImOhCkqLyjLL8sG2gMRrdTCsyknEa5MFNptMDCBWmRrgsMsEZBeXQixXLRcA
eZs6Ac3MzD3NzEy+mpmZPgAAAAB42mNgZAIAAAcABHja+8/A8P8/EP3/fxkAKLYHzWQ8goV9iI6dWAR1QcyTqgrublu4PKE+
upO4nSv9sHmr/g==
"""


def test_a_file_of_version_1_is_read() -> None:
    _assert_equal(start_from_bytes(base64.b64decode(GOLDEN), document="golden"), START)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="start: no such file"):
        read_start(tmp_path / "start")


def test_every_truncated_or_flipped_byte_is_found() -> None:
    content = start_bytes(START)
    for length in range(len(content)):
        with pytest.raises(FormatError, match=r"^start: (not a ternary start|truncated)"):
            start_from_bytes(content[:length], document="start")
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        with pytest.raises(FormatError, match=r"^start: (not a|version|truncated|damaged)"):
            start_from_bytes(bytes(damaged), document="start")


def _hashed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def _file(body: bytes, header: bytes, *, version: int = 1) -> bytes:
    length = struct.calcsize(PREFIX) + len(header) + len(body) + 32
    return _hashed(struct.pack(PREFIX, b"NESTTERN", version, length, len(header)) + header + body)


def _made(gaps: bytes = b"\x00\x01\x02", *, signs: bytes = b"\x80", **changes: Any) -> bytes:
    """A file of one layer whose hash is right, with something else in its header or body."""
    coded = zlib.compress(gaps) + changes.pop("tail", b"")
    numbers = struct.pack("<2f", *changes.pop("means", (1, -1)))
    entry = {"name": "w", "shape": [2, 3], "survivors": 3, "positions": len(coded)} | changes
    repeated = [entry] * changes.get("times", 1)
    entry.pop("times", None)
    header = zlib.compress(json_bytes({"layers": repeated}))
    return _file(numbers * len(repeated) + coded * len(repeated) + signs, header)


def test_the_made_file_is_right() -> None:
    (layer,) = start_from_bytes(_made(), document="start").layers
    assert layer.positions.tolist() == [0, 2, 5]
    assert layer.signs.tolist() == [True, False, False]


FOREIGN = {
    "version": (_file(b"", zlib.compress(b"{}"), version=2), "version: expected 1, found 2"),
    "header": (_file(b"", b"no stream"), "header: damaged"),
    "header-json": (_file(b"", zlib.compress(b"[")), "not JSON"),
    "header-keys": (_file(b"", zlib.compress(b'{"layer": []}')), "layers: missing"),
    "no-layer": (_file(b"", zlib.compress(b'{"layers": []}')), "expected at least one layer"),
    "longer": (_made(signs=b"\x80\x00"), "expected [0-9]+ bytes, as its header says, found"),
    "shape": (_made(shape=[2, 0]), r"layers\[0\].shape\[1\]: expected an integer of at least 1"),
    "survivors": (_made(survivors=7), "expected at most the 6 weights of the layer, found 7"),
    "fewer": (_made(survivors=2), "positions of 'w': expected (2 of 6|one deflated stream)"),
    "more": (_made(survivors=4), "positions of 'w': expected 4 of 6 weights"),
    "beyond": (_made(b"\x00\x01\x03"), "positions of 'w': expected 3 of 6 weights"),
    "run": (
        _made(b"\x00\x01\xff", survivors=2, shape=[300]),
        "positions of 'w': expected 2 of 300 weights",
    ),
    "bomb": (_made(bytes(10**6)), "expected one deflated stream of at most 3 bytes"),
    "tail": (_made(tail=b"\x00"), "expected one deflated stream"),
    "nan": (_made(means=(math.nan, 0)), "numbers: expected finite ones"),
    "sign": (_made(means=(1, 1)), "numbers: expected finite ones, the negative means below 0"),
    "twice": (_made(times=2), "layers: expected a different name for every layer"),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_another_program_made_is_checked(content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        start_from_bytes(content, document="start")


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(80), b"NESTTER"], ids=["empty", "zip", "part"]
)
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "start").write_bytes(content)
    with pytest.raises(FormatError, match="not a ternary start: expected it to begin with"):
        read_start(tmp_path / "start")


def test_writing_leaves_the_old_file_when_the_disk_does_not_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "start"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nestedge.documents.write_synced", fail)
    with pytest.raises(OSError, match="No space left"):
        write_start(START, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
