"""What a TFLite file says of itself."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

_DESCRIPTION_FIELD = 10
"""Where the table Model says that its field 3 is: the description."""


def description(content: bytes) -> str:
    """What a file says of itself."""
    model: Any = schema.Model.GetRootAs(content, 0)
    return (model.Description() or b"").decode()


def with_description(content: bytes, text: str) -> bytes:
    """A file that says something else of itself: what litert-torch writes is "MLIR Converted.".

    The text goes behind all that is there, so that every constant stays where it is.
    """
    table = schema.Model.GetRootAs(content, 0)._tab
    field = table.Pos + table.Offset(_DESCRIPTION_FIELD)
    assert field != table.Pos, "litert-torch writes a description"
    start = -(-len(content) // 4) * 4
    encoded = text.encode()
    patched = bytearray(content).ljust(start, b"\0")
    # A flatbuffer's string: its length, its bytes and a zero; a reference counts from itself.
    patched[field : field + 4] = (start - field).to_bytes(4, "little")
    padding = b"\0" * (4 - len(encoded) % 4)
    return bytes(patched) + len(encoded).to_bytes(4, "little") + encoded + padding
