"""Accuracy against what it costs: positions in a small drawing, one panel for each runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 40
_RADIUS = 4.5
_DECADE = (1, 2, 5)
_MOST_TICKS = 8
_STEPS = 5


@dataclass(frozen=True)
class Point:
    """One artifact.

    Attributes:
        runtime: that it is for: the panel that it stands in.
        level: index of its level: its colour.
        precision: of it: its shape.
        cost: median, lower and upper end; above zero.
        accuracy: in percent: value, lower and upper end.
        title: what it is, in words.
        is_picked: whether it is the one to use.
    """

    runtime: str
    level: int
    precision: str
    cost: tuple[float, float, float]
    accuracy: tuple[float, float, float]
    title: str
    is_picked: bool


@dataclass(frozen=True)
class Tick:
    """A value on an axis: where it stands, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point in the drawing.

    Attributes:
        path: SVG path of its shape.
        bars: SVG path of its two intervals.
        x: centre of it.
        y: centre of it.
        point: what it stands for.
    """

    path: str
    bars: str
    x: float
    y: float
    point: Point


@dataclass(frozen=True)
class Panel:
    """The points of one runtime; all panels of a chart have the same axes."""

    runtime: str
    marks: tuple[Mark, ...]
    costs: tuple[Tick, ...]
    accuracies: tuple[Tick, ...]


def panels(points: Sequence[Point], label: Callable[[float], str]) -> tuple[Panel, ...]:
    """A panel for each runtime, in the order in which points name them.

    Args:
        points: of all runtimes.
        label: text of a cost.
    """
    if not points:
        return ()
    costs = cost_ticks([value for point in points for value in point.cost])
    accuracies = accuracy_ticks([value for point in points for value in point.accuracy])

    def across(cost: float) -> float:
        return _place(math.log(cost), [math.log(tick) for tick in costs], LEFT, WIDTH - RIGHT)

    def up(accuracy: float) -> float:
        return _place(accuracy, accuracies, HEIGHT - BOTTOM, TOP)

    marks = [_mark(point, across, up) for point in points]
    return tuple(
        Panel(
            runtime,
            tuple(mark for mark in marks if mark.point.runtime == runtime),
            tuple(Tick(across(cost), label(cost)) for cost in costs),
            tuple(Tick(up(accuracy), f"{accuracy:g}") for accuracy in accuracies),
        )
        for runtime in dict.fromkeys(point.runtime for point in points)
    )


def cost_ticks(costs: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis, 1, 2 and 5 of each decade, around all costs.

    >>> cost_ticks([13, 70])
    [10.0, 20.0, 50.0, 100.0]
    """
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    # Divided, not multiplied by a negative power, so that 0.2 is the nearest number to it.
    ladder = [
        digit * 10.0**power if power >= 0 else digit / 10.0**-power
        for power in range(low, high + 1)
        for digit in _DECADE
    ]
    first = max(index for index, tick in enumerate(ladder) if tick <= min(costs))
    last = min(index for index, tick in enumerate(ladder) if tick >= max(costs))
    ticks = ladder[first : max(last, first + 1) + 1]
    if len(ticks) <= _MOST_TICKS:
        return ticks
    return [10.0**power for power in range(low, high + 1)]


def accuracy_ticks(accuracies: Sequence[float]) -> list[float]:
    """Evenly spaced ticks around all accuracies, within 0..100 percent.

    >>> accuracy_ticks([91.3, 97.2])
    [90, 92, 94, 96, 98]
    """
    low, high = max(min(accuracies), 0), min(max(accuracies), 100)
    step = next(step for step in (1, 2, 5, 10, 20) if high - low <= step * _STEPS)
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        first, last = (first - 1, last) if first else (0, 1)
    return [index * step for index in range(first, last + 1)]


def shape(precision: str, x: float, y: float) -> str:
    """SVG path of the shape that stands for a precision, around a point."""
    r = _RADIUS
    if precision == "fp32":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    if precision == "fp16":
        return f"M{x - r + 0.5:.1f} {y - r + 0.5:.1f}h{2 * r - 1}v{2 * r - 1}h{1 - 2 * r}z"
    if precision.startswith("int8"):
        return f"M{x:.1f} {y - r - 0.5:.1f}l{r + 0.5} {2 * r}h{-2 * r - 1}z"
    return f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z"


def _mark(point: Point, across: Callable[[float], float], up: Callable[[float], float]) -> Mark:
    (x, left, right), (y, bottom, top) = map(across, point.cost), map(up, point.accuracy)
    bars = f"M{x:.1f} {bottom:.1f}V{top:.1f}M{left:.1f} {y:.1f}H{right:.1f}"
    return Mark(shape(point.precision, x, y), bars, x, y, point)


def _place(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    """Where a value stands, between the first tick at `start` and the last at `end`."""
    return round(start + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start), 1)
