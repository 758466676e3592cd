"""How many channels and blocks a narrower network keeps."""

import math


def scaled(channels: int, width: float, *, divisor: int, unit: int = 1) -> int:
    """Number of channels that a layer keeps at a width multiplier.

    Channels that exist only together (a head, a group) form a unit. The exact share of units is
    rounded, halves upward, to a multiple of `divisor // gcd(divisor, unit)` units, at least one
    such multiple and at most all units; at width 1 all are kept, whatever the divisor, and so is a
    single unit at any width.

    Args:
        channels: channels of the full layer, a multiple of `unit`.
        width: share to keep, 0 < width <= 1.
        divisor: what the number of kept channels should be a multiple of.
        unit: channels that only exist together.

    Returns:
        The number of kept channels, a multiple of `unit`, at most `channels`.

    Raises:
        ValueError: an argument is out of range, or less than half a unit is asked for.

    >>> [scaled(64, width, divisor=8) for width in (0.25, 0.3, 0.5, 1.0)]
    [16, 16, 32, 64]
    >>> scaled(64, 0.6, divisor=8, unit=16)
    32
    """
    if not 0 < width <= 1:
        raise ValueError(f"width must be in (0, 1], got {width}")
    if divisor < 1 or unit < 1 or channels < 1 or channels % unit:
        raise ValueError(
            f"channels must be a multiple of unit, got {channels=}, {unit=}, {divisor=}"
        )
    units = channels // unit
    if units == 1:
        return channels  # a single head or group can only stay
    if width * units < 0.5:
        raise ValueError(f"width {width} leaves less than half a unit, {channels=}, {unit=}")
    if width == 1:
        # Rounded, 10 channels at divisor 8 would be 8: the full network would not be the full one.
        return channels
    step = divisor // math.gcd(divisor, unit)
    rounded = math.floor(width * units / step + 0.5) * step
    return min(units, max(step, rounded)) * unit


def kept_blocks(depth: tuple[int, ...] | None, full: tuple[int, ...]) -> tuple[int, ...]:
    """Number of blocks kept in every stage; the first ones of a stage are the ones kept.

    Args:
        depth: blocks to keep, one number a stage; None keeps all.
        full: blocks of the full network, one number a stage.

    Returns:
        One number a stage.

    Raises:
        ValueError: depth has another number of stages, or a stage keeps no block or too many.

    >>> kept_blocks((1, 3, 2), full=(3, 3, 3))
    (1, 3, 2)
    """
    if depth is None:
        return full
    if len(depth) != len(full) or not all(
        1 <= kept <= blocks for kept, blocks in zip(depth, full, strict=True)
    ):
        raise ValueError(f"depth must keep between 1 and all blocks of {full}, got {depth}")
    return depth
