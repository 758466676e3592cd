"""What accuracy costs on a device: the points of its chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nestedge.matrix import Cell
from nestedge.profiling.measurement import Measurement
from nestedge.report.chart import Panel, Point, panels
from nestedge.report.wording import between, decimals, precision_rank
from nestedge.selection import Candidate, format_size

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


@dataclass(frozen=True)
class Chart:
    """Accuracy against what it costs.

    Attributes:
        panels: one for each runtime; none where there is nothing to draw.
        cost: what the horizontal axis says.
        left_out: cells that are not in it, and why; "" where there are none.
        levels: names of those in it, with the number of their colour.
        precisions: those in it.
    """

    panels: tuple[Panel, ...]
    cost: str
    left_out: str
    levels: tuple[tuple[int, str], ...]
    precisions: tuple[str, ...]


def tradeoff(
    cells: Sequence[Cell],
    known: Mapping[str, Candidate],
    *,
    levels: Sequence[str],
    picked: str,
) -> Chart:
    """Accuracy against latency, where all of them were timed on the device, else against file size.

    Args:
        cells: of the device.
        known: what is known of their artifacts there, by cell.
        levels: of the network, in its order.
        picked: name of the cell to use, or "".
    """
    rated = [cell for cell in cells if cell.name in known and known[cell.name].accuracy is not None]
    latencies = [known[cell.name].latency for cell in rated]
    # A logarithm needs more than zero.
    is_timed = all(found is not None and found.low > 0 for found in latencies)
    points = [_point(cell, known[cell.name], levels, is_timed, picked) for cell in rated]
    unit, factor = ("ms", 1)
    if not is_timed:
        unit, factor = _size_unit(max(point.cost[2] for point in points))
    unrated = len(known) - len(rated)
    return Chart(
        panels(points, lambda cost: f"{cost / factor:g}"),
        cost=f"{'median latency' if is_timed else 'file size'}, {unit}",
        left_out=f"{unrated} of {len(known)} without a measured accuracy" if unrated else "",
        levels=tuple(
            (index, level)
            for index, level in enumerate(levels)
            if any(point.level == index for point in points)
        ),
        precisions=tuple(sorted({point.precision for point in points}, key=precision_rank)),
    )


def _point(
    cell: Cell, known: Candidate, levels: Sequence[str], is_timed: bool, picked: str
) -> Point:
    assert known.accuracy is not None, "only those are drawn whose accuracy was measured"
    size = float(known.size_bytes)
    cost, said = (size, size, size), format_size(known.size_bytes)
    if is_timed and known.latency is not None:
        cost = _ends(known.latency)
        digits = decimals(known.latency.value)
        said = f"{cost[0]:.{digits}f} ms ({between(*cost[1:], digits=digits)})"
    accuracy = _ends(known.accuracy)
    return Point(
        runtime=cell.runtime,
        level=levels.index(cell.level),
        precision=cell.precision,
        cost=cost,
        accuracy=accuracy,
        title=f"{cell.name}: {accuracy[0]:.2f} % ({between(*accuracy[1:], digits=2)}), {said}",
        is_picked=cell.name == picked,
    )


def _ends(found: Measurement) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _size_unit(size_bytes: float) -> tuple[str, int]:
    """The largest unit that a size has at least one of, and its bytes."""
    return next((unit for unit in _UNITS if size_bytes >= unit[1]), ("B", 1))
