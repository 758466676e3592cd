"""A file of ours beside the stock tools'."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A file of ours beside the stock tools'.

    Attributes:
        network: its name.
        level: of it.
        target: the converter.
        precision: of both files.
        failure: why there is no file of ours, or "".
        stock_failure: why there is no stock file, or "".
        error: of our outputs, relative to the level's largest.
        cosine: of our outputs with the level's.
        stock_error: of the stock file's.
        bytes: of our file.
        stock_bytes: of the stock file.
        ms: median of a run of ours, one thread.
        to_fp32: our median, of that of our file in single precision.
        to_stock: median of ours / stock, of paired rounds.
    """

    network: str
    level: str
    target: str
    precision: str
    failure: str = ""
    stock_failure: str = ""
    error: float | None = None
    cosine: float | None = None
    stock_error: float | None = None
    bytes: int | None = None
    stock_bytes: int | None = None
    ms: float | None = None
    to_fp32: float | None = None
    to_stock: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a record."""
        return asdict(self)
