from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.networks.rounding import scaled
from nestedge.errors import UsageError
from nestedge.levels import Level, Share, choose, kept_blocks, rounded_units
from nestedge.nesting import Axis, Choice

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
    "depth of zero": (Level(depth=(0, 1)), "'blocks': expected a depth above 0, found 0"),
    "too many blocks": (Level(depth=(3, 1)), "'blocks': expected 1 to 2 blocks, found 3"),
    "depth above one": (Level(depth=1.1), "expected a multiplier of at most 1.0"),
    "stages": (Level(depth=(1,)), r"expected 2 numbers for \['blocks', 'last'\], found \(1,\)"),
}


@pytest.mark.parametrize(("level", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_level_that_cannot_be_is_refused(level: Level, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(level, "x", AXES, divisor=8)
