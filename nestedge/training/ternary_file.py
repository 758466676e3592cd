"""The file of a ternary start: two float32 per layer, which weights are zero, and signs.

Magic, version, length; the size of the header, and the header: deflated JSON with the name, the
shape, the number of weights that are not zero and the size of their positions for every layer;
the numbers, little-endian, positive before negative; the positions of every layer; one bit per sign
of all layers; the SHA-256 of all of it.

Positions are the gaps between weights that are not zero, one byte each, deflated: 255 stands for
255 zeros and no weight after them. At 2 percent of random weights, positions and signs are then
0.6 percent above their entropy, where the deflated bits of the mask are 30 percent above it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nestedge.documents import Value, json_bytes, parse_json, write_whole
from nestedge.errors import FormatError, UsageError
from nestedge.training.ternary import TernaryLayer, TernaryStart

VERSION = 1
_MAGIC = b"NESTTERN"
_PREFIX = struct.Struct("<8sIQI")
"""Magic, version, length of the file, size of the header."""

_HASH = 32
_NUMBERS = 8
"""Bytes per layer."""

_RUN = 255
_LONGEST_HEADER = 1 << 24
_KIND = "ternary start"


@dataclass(frozen=True)
class StartSizes:
    """What a ternary start weighs, in bytes.

    Attributes:
        numbers: two float32 per layer.
        pattern: which weights are zero, and the signs of the others.
        file: all of it: names, shapes and hash too.
        dense: the same weights as float32.
    """

    numbers: int
    pattern: int
    file: int
    dense: int


@dataclass(frozen=True)
class _Entry:
    """A layer as the header has it."""

    name: str
    shape: tuple[int, ...]
    survivors: int
    positions: int


def write_start(start: TernaryStart, path: Path) -> None:
    """Write a ternary start, whole.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    write_whole(path, start_bytes(start))


def read_start(path: Path) -> TernaryStart:
    """Read a ternary start.

    Raises:
        UsageError: there is no such file.
        FormatError: it is another file, of another version, truncated or damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    return start_from_bytes(path.read_bytes(), document=str(path))


def start_sizes(start: TernaryStart) -> StartSizes:
    """What a ternary start weighs as a file, beside the dense weights."""
    positions = sum(len(_deflated_gaps(layer.positions)) for layer in start.layers)
    return StartSizes(
        numbers=_NUMBERS * len(start.layers),
        pattern=positions + _sign_bytes(sum(len(layer.signs) for layer in start.layers)),
        file=len(start_bytes(start)),
        dense=4 * sum(math.prod(layer.shape) for layer in start.layers),
    )


def start_bytes(start: TernaryStart) -> bytes:
    """A ternary start as the content of a file."""
    positions = [_deflated_gaps(layer.positions) for layer in start.layers]
    entries = [
        {
            "name": layer.name,
            "shape": list(layer.shape),
            "survivors": len(layer.positions),
            "positions": len(coded),
        }
        for layer, coded in zip(start.layers, positions, strict=True)
    ]
    header = zlib.compress(json_bytes({"layers": entries}), 9)
    numbers = [(layer.positive, layer.negative) for layer in start.layers]
    signs = np.concatenate([layer.signs for layer in start.layers])
    body = [header, np.array(numbers, dtype="<f4").tobytes(), *positions]
    body.append(np.packbits(signs).tobytes())
    length = _PREFIX.size + sum(map(len, body)) + _HASH
    content = _PREFIX.pack(_MAGIC, VERSION, length, len(header)) + b"".join(body)
    return content + hashlib.sha256(content).digest()


def start_from_bytes(content: bytes, *, document: str) -> TernaryStart:
    """The ternary start in the content of a file, called `document` in errors.

    Raises:
        FormatError: it is another file's, of another version, truncated or damaged.
    """
    size = _checked_header_size(content, document)
    header = content[_PREFIX.size :][:size]
    entries = _entries(_inflate(header, _LONGEST_HEADER, f"{document}: header"), document)
    total = sum(entry.survivors for entry in entries)
    parts = (_NUMBERS * len(entries), *(e.positions for e in entries), _sign_bytes(total), _HASH)
    bounds = list(itertools.accumulate(parts, initial=_PREFIX.size + size))
    if bounds[-1] != len(content):
        raise FormatError(
            f"{document}: expected {bounds[-1]} bytes, as its header says, found {len(content)}"
        )
    numbers, *positions, packed = (content[a:b] for a, b in itertools.pairwise(bounds[:-1]))
    means = _means(numbers, document)
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=total).astype(bool)
    signs = np.split(bits, list(itertools.accumulate(entry.survivors for entry in entries))[:-1])
    return TernaryStart(
        tuple(
            TernaryLayer(e.name, e.shape, *mean, _positions(coded, e, document), sign)
            for e, mean, coded, sign in zip(entries, means, positions, signs, strict=True)
        )
    )


def _checked_header_size(content: bytes, document: str) -> int:
    """The size of the header of a file that is whole and of this version."""
    if not content.startswith(_MAGIC):
        raise FormatError(f"{document}: not a {_KIND}: expected it to begin with {_MAGIC!r}")
    if len(content) < _PREFIX.size + _HASH:
        raise FormatError(f"{document}: truncated: found only {len(content)} bytes")
    _, version, length, size = _PREFIX.unpack_from(content)
    if version != VERSION:
        raise FormatError(
            f"{document}: version: expected {VERSION}, found {version}: another version of "
            "nestedge wrote this"
        )
    if length != len(content):
        raise FormatError(
            f"{document}: truncated or longer than written: expected {length} bytes, found "
            f"{len(content)}"
        )
    if hashlib.sha256(content[:-_HASH]).digest() != content[-_HASH:]:
        raise FormatError(f"{document}: damaged: its content has not the hash that it ends with")
    return int(size)


def _entries(header: bytes, document: str) -> list[_Entry]:
    (layers,) = parse_json(header, document=document).fields("layers")
    entries = [_entry(layer) for layer in layers.elements()]
    if not entries:
        raise layers.error("at least one layer")
    if len({entry.name for entry in entries}) < len(entries):
        raise layers.error("a different name for every layer")
    return entries


def _entry(layer: Value) -> _Entry:
    name, shape, survivors, positions = layer.fields("name", "shape", "survivors", "positions")
    found = _Entry(
        name.string(),
        tuple(size.integer(minimum=1) for size in shape.elements()),
        survivors.integer(minimum=1),
        positions.integer(minimum=1),
    )
    if found.survivors > math.prod(found.shape):
        raise survivors.error(f"at most the {math.prod(found.shape)} weights of the layer")
    return found


def _means(numbers: bytes, document: str) -> list[tuple[np.float32, np.float32]]:
    found = np.frombuffer(numbers, dtype="<f4").astype(np.float32).reshape(-1, 2)
    if not (np.isfinite(found).all() and (found * [1, -1] >= 0).all()):
        raise FormatError(f"{document}: numbers: expected finite ones, the negative means below 0")
    return [(positive, negative) for positive, negative in found]


def _sign_bytes(signs: int) -> int:
    return -(-signs // 8)


def _deflated_gaps(positions: npt.NDArray[np.int64]) -> bytes:
    gaps = np.diff(positions, prepend=-1) - 1
    runs, rest = np.divmod(gaps, _RUN)
    found = np.full(int(runs.sum()) + len(gaps), _RUN, dtype=np.uint8)
    found[np.cumsum(runs + 1) - 1] = rest
    # Gaps at random repeat nothing, so that codes alone are best; those of structures repeat.
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
    return min((_deflate(found.tobytes(), strategy) for strategy in strategies), key=len)


def _positions(coded: bytes, entry: _Entry, document: str) -> npt.NDArray[np.int64]:
    where = f"{document}: positions of {entry.name!r}"
    weights = math.prod(entry.shape)
    longest = entry.survivors + weights // _RUN
    values = np.frombuffer(_inflate(coded, longest, where), dtype=np.uint8)
    ends = np.flatnonzero(values != _RUN)
    # A byte of 255 moves on by 255 places; any other by one more than it says, to a weight.
    moved = np.cumsum(values.astype(np.int64) + (values != _RUN))
    if len(ends) != entry.survivors or ends[-1] != len(values) - 1 or moved[-1] > weights:
        raise FormatError(f"{where}: expected {entry.survivors} of {weights} weights")
    found: npt.NDArray[np.int64] = moved[ends] - 1
    return found


def _deflate(content: bytes, strategy: int) -> bytes:
    deflating = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return deflating.compress(content) + deflating.flush()


def _inflate(content: bytes, longest: int, where: str) -> bytes:
    """Inflated content, which must not be longer than it can be."""
    inflating = zlib.decompressobj()
    try:
        found = inflating.decompress(content, longest)
    except zlib.error as error:
        raise FormatError(f"{where}: damaged: {error}") from error
    if not inflating.eof or inflating.unused_data:
        raise FormatError(f"{where}: expected one deflated stream of at most {longest} bytes")
    return found
