from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.networks.rounding import scaled
from nestedge.errors import UsageError
from nestedge.intervals import Intervals
from nestedge.layouts import Axis
from nestedge.levels import Level, Share, choose, kept_blocks, rounded_units
from nestedge.nesting import Choice

AXES = {
    "stem": Axis(16),
    "blocks.0.conv": Axis(32),
    "blocks.1.conv": Axis(32),
    "blocks.1.qkv[0:96]": Axis(6, unit=16),
    "blocks": Axis(2, kind="depth"),
    "last": Axis(5, kind="depth"),
}

ROUNDED: dict[str, tuple[int, Share, int, int, int]] = {
    "a multiple": (64, 0.25, 8, 1, 16),
    "down": (64, 0.3, 8, 1, 16),
    "a half upward": (48, 0.25, 8, 1, 16),
    "at least one multiple": (64, 0.01, 8, 1, 8),
    "at most all": (10, 0.9, 8, 1, 8),
    "no more than there are": (6, 0.5, 8, 1, 6),
    "all at one": (10, 1.0, 8, 1, 10),
    "heads": (6, 0.5, 8, 64, 3),
    "units of a common divisor": (32, 0.3, 8, 4, 10),
    "a number of units": (10, 3, 8, 1, 3),
    "all as a number": (10, 10, 8, 1, 10),
}


@pytest.mark.parametrize(
    ("size", "share", "divisor", "unit", "expected"), list(ROUNDED.values()), ids=list(ROUNDED)
)
def test_a_width_is_rounded(
    size: int, share: Share, divisor: int, unit: int, expected: int
) -> None:
    assert rounded_units(size, share, divisor=divisor, unit=unit) == expected


@given(
    st.integers(1, 300), st.floats(0.001, 1.0), st.integers(1, 32), st.sampled_from([1, 2, 4, 12])
)
def test_widths_are_rounded_as_by_hand(size: int, width: float, divisor: int, unit: int) -> None:
    if size == 1:  # a single head or group can only stay
        assert rounded_units(size, width, divisor=divisor, unit=unit) == 1
        return
    if width * size < 0.5:
        with pytest.raises(UsageError, match="leaves none of its"):
            rounded_units(size, width, divisor=divisor, unit=unit)
        return
    found = rounded_units(size, width, divisor=divisor, unit=unit)
    assert found * unit == scaled(size * unit, width, divisor=divisor, unit=unit)


def test_a_multiplier_is_for_every_axis_of_its_kind() -> None:
    found = choose(Level(0.5), "small", AXES, divisor=8)
    assert found == Choice(
        {
            "stem": ((0, 8),),
            "blocks.0.conv": ((0, 16),),
            "blocks.1.conv": ((0, 16),),
            "blocks.1.qkv[0:96]": ((0, 3),),
        }
    )


def test_the_last_pattern_that_fits_counts_and_other_axes_stay_whole() -> None:
    level = Level({"blocks.*": 0.5, "blocks.1.conv": 24}, depth={"last": 0.5})
    assert choose(level, "x", AXES, divisor=8).kept == {
        "blocks.0.conv": ((0, 16),),
        "blocks.1.conv": ((0, 24),),
        "blocks.1.qkv[0:96]": ((0, 3),),
        "last": ((0, 3),),
    }


def test_an_axis_is_found_by_its_own_name() -> None:
    level = Level({"blocks.1.qkv[0:96]": 2})
    assert choose(level, "x", AXES, divisor=8).kept == {"blocks.1.qkv[0:96]": ((0, 2),)}


def test_a_multiplier_for_all_axes_leaves_an_axis_of_one_unit_whole() -> None:
    axes = {"stem": Axis(16), "whole": Axis(1, unit=8)}
    assert choose(Level(0.25), "x", axes, divisor=4).kept == {"stem": ((0, 4),)}


def test_depths_are_the_first_blocks_of_every_stage() -> None:
    assert choose(Level(depth=(1, 3)), "x", AXES, divisor=8).kept == {
        "blocks": ((0, 1),),
        "last": ((0, 3),),
    }
    assert choose(Level(depth=0.5), "x", AXES, divisor=8).kept == {
        "blocks": ((0, 1),),
        "last": ((0, 3),),
    }


FINE = {
    "stem": Axis(16),
    "stem.kernel": Axis(3, unit=2, kind="kernel", base=1),
    "patch.kernel": Axis(1, unit=2, kind="kernel", base=2),
    "qkv": Axis(6, unit=64),
    "qkv.head_width": Axis(64, kind="head_width"),
    "inception": Axis(4, kind="branches"),
    "blocks": Axis(3, kind="depth"),
}

FINER: dict[str, tuple[Level, dict[str, Intervals]]] = {
    "a kernel": (Level(kernel={"stem*": 3}), {"stem.kernel": ((0, 1),)}),
    "the middle of a kernel": (Level(kernel={"stem.kernel": 1}), {"stem.kernel": ()}),
    "an even kernel": (Level(kernel={"patch.kernel": 2}), {"patch.kernel": ()}),
    "no kernel above it": (Level(kernel=7), {}),
    "head width": (Level(head_width=0.5), {"qkv.head_width": ((0, 32),)}),
    "a number of places": (Level(head_width={"*": 5}), {"qkv.head_width": ((0, 5),)}),
    "branches": (Level(branches=0.5), {"inception": ((0, 2),)}),
    "listed branches": (Level(branches={"inc*": [0, 3]}), {"inception": ((0, 1), (3, 4))}),
    "listed channels": (Level({"stem": (5, 3, 4, 0)}), {"stem": ((0, 1), (3, 6))}),
    "all of them listed": (Level({"qkv": range(6)}), {}),
    "listed blocks": (Level(depth={"blocks": [0, 2]}), {"blocks": ((0, 1), (2, 3))}),
    "a mix": (
        Level({"*": 0.5, "qkv": [1]}, depth=(2,), kernel={"stem*": 5}, head_width={"*": [0, 9]}),
        {
            "stem": ((0, 8),),
            "qkv": ((1, 2),),
            "qkv.head_width": ((0, 1), (9, 10)),
            "stem.kernel": ((0, 2),),
            "blocks": ((0, 2),),
        },
    ),
}


@pytest.mark.parametrize(("level", "kept"), list(FINER.values()), ids=list(FINER))
def test_a_level_keeps_what_is_asked_of_every_kind_of_axis(
    level: Level, kept: dict[str, Intervals]
) -> None:
    assert choose(level, "x", FINE, divisor=8).kept == kept


WRONG_FINER: dict[str, tuple[Level, str]] = {
    "a size between": (Level(kernel={"stem*": 4}), "'stem.kernel': expected 1, 3, 5 or 7, found 4"),
    "a size that one kernel has not": (Level(kernel=3), "'patch.kernel': expected 2 or 4, found 3"),
    "a kernel of nothing": (Level(kernel={"stem*": 0}), "expected 1, 3, 5 or 7, found 0"),
    "a list of rings": (
        Level(kernel={"stem*": [0, 1]}),  # type: ignore[dict-item]
        "expected a size, found",
    ),
    "no unit": (Level({"stem": []}), r"expected different numbers of 0 to 15, found \[\]"),
    "a unit twice": (Level({"stem": [1, 1]}), r"numbers of 0 to 15, found \[1, 1\]"),
    "a unit too many": (Level({"stem": [16]}), r"numbers of 0 to 15, found \[16\]"),
    "a unit below": (Level({"stem": [-1]}), r"numbers of 0 to 15, found \[-1\]"),
    "a list for everything": (
        Level(head_width=[1, 2]),  # type: ignore[arg-type]
        "head_width: expected one share, or lists by names of axes",
    ),
    "too many branches": (Level(branches={"*": 5}), "expected 1 to 4 branches, found 5"),
    "a width as a head width": (Level(head_width={"stem": 1}), "head_width: no axis fits 'stem'"),
}


@pytest.mark.parametrize(("level", "message"), list(WRONG_FINER.values()), ids=list(WRONG_FINER))
def test_a_finer_choice_that_cannot_be_is_refused(level: Level, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(level, "x", FINE, divisor=8)


@pytest.mark.parametrize("level", [Level(kernel=3), Level(head_width=0.5), Level(branches=0.5)])
def test_what_a_network_has_no_axis_for_is_refused(level: Level) -> None:
    with pytest.raises(UsageError, match="no axis of this kind in the network"):
        choose(level, "x", AXES, divisor=8)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.3, 2), (0.5, 3), (1.0, 5), (1, 1), (4, 4)]
)
def test_a_depth_is_rounded_half_up_and_keeps_a_block(share: Share, expected: int) -> None:
    assert kept_blocks(5, share) == expected


WRONG: dict[str, tuple[Level, str]] = {
    "zero": (Level(0.0), "level 'x', axis 'stem': expected a width above 0, found 0.0"),
    "negative": (Level(-0.5), "expected a width above 0"),
    "no number": (Level(float("nan")), "expected a width above 0, found nan"),
    "infinite": (Level(float("inf")), "expected a width above 0, found inf"),
    "above one": (Level(1.5), "expected a multiplier of at most 1.0, found 1.5"),
    "a truth": (Level(True), "expected a width above 0, found True"),
    "too many units": (Level({"stem": 17}), "'stem': expected 1 to 16 units, found 17"),
    "nothing": (Level(0.001), r"width 0.001 leaves none of its 16 units.*that leaves one is 0.032"),
    "unknown axis": (Level({"sten": 0.5}), "no axis fits 'sten'.*did you mean 'stem'"),
    "unknown stage": (Level(depth={"lst": 1}), "depth: no axis fits 'lst'.*did you mean 'last'"),
    "a stage as width": (Level({"last": 0.5}), "width: no axis fits 'last'"),
    "depth of zero": (
        Level(depth=(0, 1)),
        "'blocks': expected a share of its blocks above 0, found 0",
    ),
    "too many blocks": (Level(depth=(3, 1)), "'blocks': expected 1 to 2 blocks, found 3"),
    "depth above one": (Level(depth=1.1), "expected a multiplier of at most 1.0"),
    "stages": (Level(depth=(1,)), r"expected 2 numbers for \['blocks', 'last'\], found \(1,\)"),
}


@pytest.mark.parametrize(("level", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_level_that_cannot_be_is_refused(level: Level, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(level, "x", AXES, divisor=8)
