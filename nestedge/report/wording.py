"""Numbers as people read them, and precisions in the order in which they expect them."""

from __future__ import annotations

import math

from nestedge.precisions import PRECISIONS

UNMEASURED = "unmeasured"
_SHOWN = 8
_PRECISIONS = tuple(PRECISIONS)


def count(number: int) -> str:
    """A whole number with its thousands apart.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,}"


def short_count(number: int) -> str:
    """A large whole number in three or four digits.

    >>> short_count(950), short_count(1_234_567), short_count(4_100_000_000)
    ('950', '1.235 M', '4.1 G')
    """
    for unit, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return str(number)


def decimals(value: float) -> int:
    """Digits after the point that leave a value about three that count.

    >>> [decimals(value) for value in (0.0312, 0.31, 3.12, 31.2, 312.0)]
    [4, 3, 2, 1, 0]
    """
    if value <= 0:
        return 0
    return min(max(2 - math.floor(math.log10(value)), 0), 6)


def between(low: float, high: float, *, digits: int) -> str:
    """An interval.

    >>> between(1.234, 2, digits=2)
    '1.23 to 2.00'
    """
    return f"{low:.{digits}f} to {high:.{digits}f}"


def error(value: float) -> str:
    """A relative error.

    >>> error(2.1234e-7), error(math.inf)
    ('2.1e-07', 'not a number')
    """
    return f"{value:.1e}" if math.isfinite(value) else "not a number"


def short_hash(sha256: str) -> str:
    """The first digits of a hash, enough to tell two apart on one page.

    >>> short_hash("0123456789abcdef")
    '01234567'
    """
    return sha256[:_SHOWN]


def precision_rank(precision: str) -> tuple[int, str]:
    """What precisions are sorted by: the exact before the small, those unknown here last.

    >>> sorted(["int8", "bf16", "fp32", "fp16"], key=precision_rank)
    ['fp32', 'fp16', 'int8', 'bf16']
    """
    is_known = precision in _PRECISIONS
    return _PRECISIONS.index(precision) if is_known else len(_PRECISIONS), precision


def plural(number: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "thread"), plural(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count(number)} {noun if number == 1 else noun + 's'}"
