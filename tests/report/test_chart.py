from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nestedge.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    accuracy_ticks,
    cost_ticks,
    panels,
    shape,
)

_POINT = Point(
    runtime="onnx",
    level=0,
    precision="fp32",
    cost=(20.0, 15.0, 30.0),
    accuracy=(92.0, 91.0, 94.0),
    title="small/onnx-fp32",
    is_picked=False,
)


@pytest.mark.parametrize(
    ("costs", "ticks"),
    [
        ([13, 70], [10, 20, 50, 100]),
        ([0.013, 0.07], [0.01, 0.02, 0.05, 0.1]),
        ([20], [20, 50]),
        ([10, 10], [10, 20]),
        ([3, 200_000], [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]),
    ],
)
def test_ticks_of_costs_are_1_2_and_5_around_all_of_them(
    costs: list[float], ticks: list[float]
) -> None:
    assert cost_ticks(costs) == ticks


@pytest.mark.parametrize(
    ("accuracies", "ticks"),
    [
        ([91.3, 97.2], [90, 92, 94, 96, 98]),
        ([10, 99.5], [0, 20, 40, 60, 80, 100]),
        ([98.2, 98.4], [98, 99]),
        ([100, 100], [99, 100]),
        ([0, 0], [0, 1]),
    ],
)
def test_ticks_of_accuracies_are_even_and_within_0_to_100(
    accuracies: list[float], ticks: list[float]
) -> None:
    assert accuracy_ticks(accuracies) == ticks


def test_cheaper_is_further_left_and_more_accurate_is_higher() -> None:
    dear = replace(_POINT, cost=(70.0, 70.0, 70.0), accuracy=(97.0, 96.0, 98.0))
    (panel,) = panels([_POINT, dear], str)
    assert panel.marks[0].x < panel.marks[1].x
    assert panel.marks[0].y > panel.marks[1].y


def test_a_cost_at_a_tick_stands_at_it() -> None:
    (panel,) = panels([_POINT], lambda cost: f"{cost:g}")
    assert [tick.label for tick in panel.costs] == ["10", "20", "50"]
    assert panel.marks[0].x == panel.costs[1].at


def test_bars_reach_from_end_to_end_of_both_intervals() -> None:
    (panel,) = panels([_POINT], str)
    (mark,) = panel.marks
    found = re.fullmatch(r"M(\S+) (\S+)V(\S+)M(\S+) (\S+)H(\S+)", mark.bars)
    assert found is not None
    x, low, high, left, y, right = map(float, found.groups())
    assert (x, y) == (mark.x, mark.y)
    assert high < mark.y < low
    assert left < mark.x < right


def test_every_runtime_has_a_panel_and_all_have_the_same_axes() -> None:
    other = replace(_POINT, runtime="tflite", cost=(900.0, 900.0, 900.0))
    found = panels([_POINT, other, replace(_POINT, level=1)], str)
    assert [(panel.runtime, len(panel.marks)) for panel in found] == [("onnx", 2), ("tflite", 1)]
    assert found[0].costs == found[1].costs
    assert found[0].accuracies == found[1].accuracies


def test_all_marks_stand_within_the_axes() -> None:
    points = [
        replace(_POINT, cost=(cost, cost / 2, cost * 2), accuracy=(accuracy, 0.0, 100.0))
        for cost in (0.004, 1.0, 77.0, 123456.0)
        for accuracy in (0.0, 33.3, 100.0)
    ]
    (panel,) = panels(points, str)
    assert all(LEFT <= mark.x <= WIDTH - RIGHT for mark in panel.marks)
    assert all(TOP <= mark.y <= HEIGHT - BOTTOM for mark in panel.marks)
    assert panel.costs[0].at == LEFT
    assert panel.costs[-1].at == WIDTH - RIGHT


def test_without_points_there_is_no_panel() -> None:
    assert panels([], str) == ()


def test_every_precision_has_a_shape_of_its_own() -> None:
    assert len({shape(precision, 0, 0) for precision in ("fp32", "fp16", "int8", "other")}) == 4
