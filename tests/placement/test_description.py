from __future__ import annotations

import json

import pytest

from nestedge.placement import Placed, Placement
from nestedge.placement.description import UNNAMED, counted, unnamed

CONV = Placed("CONV_2D", "a", "XNNPACK", 900)
DENSE = Placed("FULLY_CONNECTED", "b", "CPU", 100)
RESHAPE = Placed("RESHAPE", "c", "CPU", 0)
UNKNOWN = Placed("LSTM", "d", "XNNPACK", None)


def _placement(*operators: Placed) -> Placement:
    return Placement("XNNPACK", operators, 1, "a test")


@pytest.mark.parametrize(
    ("operators", "share", "unit"),
    [
        ((CONV, DENSE, RESHAPE), 0.9, "MACs"),
        ((CONV, RESHAPE, RESHAPE), 1.0, "MACs"),
        ((DENSE,), 0.0, "MACs"),
        ((RESHAPE, Placed("ADD", "e", "XNNPACK", 0)), 0.5, "operators"),
        ((CONV, DENSE, RESHAPE, UNKNOWN), 0.5, "operators"),
        ((), 1.0, "operators"),
    ],
    ids=["macs", "reshapes weigh nothing", "nothing", "no macs", "unknown macs", "no operators"],
)
def test_the_share_is_of_macs_where_these_are_known(
    operators: tuple[Placed, ...], share: float, unit: str
) -> None:
    placement = _placement(*operators)
    assert placement.share == share
    assert placement.unit == unit


def test_what_runs_elsewhere_comes_with_the_most_macs_first() -> None:
    assert _placement(RESHAPE, CONV, DENSE).elsewhere == (DENSE, RESHAPE)


def test_kinds_are_counted_in_the_order_they_come_in() -> None:
    assert counted([DENSE, RESHAPE, DENSE]) == "2 FULLY_CONNECTED, 1 RESHAPE"
    assert counted([]) == ""


def test_operators_of_which_only_the_number_is_known_share_by_number() -> None:
    placement = _placement(*unnamed({"XNNPACK": 3, "CPU": 1}))
    assert (placement.share, placement.unit) == (0.75, "operators")
    assert counted(placement.elsewhere) == f"1 {UNNAMED}"


def test_the_json_has_the_share_and_every_operator() -> None:
    document = json.loads(json.dumps(_placement(CONV, DENSE).to_json()))
    assert document["share"] == 0.9
    assert document["unit"] == "MACs"
    assert document["partitions"] == 1
    assert document["operators"][1] == {
        "kind": "FULLY_CONNECTED",
        "name": "b",
        "where": "CPU",
        "macs": 100,
    }
