from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nestedge.matrix import Cell
from nestedge.report.tradeoff import tradeoff
from nestedge.selection import Candidate
from tests.fakes import fake_build, measurement

_CELLS = (Cell("small", "fake", "fp32"), Cell("full", "fake", "fp32"))
_LEVELS = ("tiny", "small", "full")


def _known(
    tmp_path: Path, *, accuracies: Mapping[str, float], latencies: Mapping[str, float]
) -> dict[str, Candidate]:
    """What is known of two artifacts, the quantities by level."""
    return {
        artifact.cell: Candidate(
            artifact.cell,
            size_bytes=20_000,
            peak_memory_bytes=1,
            parameters=1,
            latency=(
                measurement(artifact, "latency_ms", latencies[artifact.level], width=0.5)
                if artifact.level in latencies
                else None
            ),
            accuracy=(
                measurement(artifact, "accuracy_percent", accuracies[artifact.level], width=1)
                if artifact.level in accuracies
                else None
            ),
        )
        for artifact in fake_build(tmp_path)
    }


def test_where_all_were_timed_the_cost_is_the_latency(tmp_path: Path) -> None:
    both = {"small": 2.0, "full": 9.0}
    known = _known(tmp_path, accuracies={"small": 90, "full": 95}, latencies=both)
    chart = tradeoff(_CELLS, known, levels=_LEVELS, picked="full/fake-fp32")
    assert chart.cost == "median latency, ms"
    points = [mark.point for mark in chart.panels[0].marks]
    assert [point.cost for point in points] == [(2.0, 1.5, 2.5), (9.0, 8.5, 9.5)]
    assert [point.is_picked for point in points] == [False, True]
    assert points[0].title == ("small/fake-fp32: 90.00 % (89.00 to 91.00), 2.00 ms (1.50 to 2.50)")
    assert chart.left_out == ""


def test_where_one_was_not_timed_the_cost_is_the_file_size(tmp_path: Path) -> None:
    known = _known(tmp_path, accuracies={"small": 90, "full": 95}, latencies={"small": 2.0})
    chart = tradeoff(_CELLS, known, levels=_LEVELS, picked="")
    assert chart.cost == "file size, kB"
    assert [tick.label for tick in chart.panels[0].costs] == ["20", "50"]
    title = chart.panels[0].marks[0].point.title
    assert title == "small/fake-fp32: 90.00 % (89.00 to 91.00), 20 kB"


def test_a_latency_that_may_be_zero_is_not_put_on_a_logarithmic_axis(tmp_path: Path) -> None:
    both = {"small": 0.25, "full": 9.0}
    known = _known(tmp_path, accuracies={"small": 90, "full": 95}, latencies=both)
    assert tradeoff(_CELLS, known, levels=_LEVELS, picked="").cost == "file size, kB"


def test_what_has_no_accuracy_is_left_out_and_counted(tmp_path: Path) -> None:
    known = _known(tmp_path, accuracies={"full": 95}, latencies={})
    chart = tradeoff(_CELLS, known, levels=_LEVELS, picked="")
    assert chart.left_out == "1 of 2 without a measured accuracy"
    assert chart.levels == ((2, "full"),)
    assert chart.precisions == ("fp32",)
