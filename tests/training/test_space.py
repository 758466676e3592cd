from __future__ import annotations

import copy
import random
from itertools import product

import pytest
import torch

from benchmarks.networks.mobilenet import MobileNet
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.training.space import Choices, Space, space_of

BLOCK = "stages.2.1"


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    return nest(MobileNet(), torch.randn(2, 3, 32, 32), {})


@pytest.fixture(scope="module")
def space(nested: NestedModel) -> Space:
    return space_of(
        nested,
        width={"stages.2.*.expand.0": (0.5, 0.75, 1.0)},
        kernel={"stages.2.*.kernel": (1, 3)},
        depth={"stages.2": (1, 2, 3)},
    )


def _sizes(nested: NestedModel, level: Level) -> dict[str, tuple[int, ...]]:
    nested.add_level("taken", level)
    try:
        return {name: tuple(t.shape) for name, t in state_dict(nested, "taken").items()}
    finally:
        nested.remove_level("taken")


def test_the_largest_and_the_smallest_subnet_have_the_sizes_at_the_ends(
    nested: NestedModel, space: Space
) -> None:
    largest, smallest = _sizes(nested, space.largest()), _sizes(nested, space.smallest())
    assert largest["stages.2.1.depthwise.0.weight"] == (160, 1, 3, 3)
    assert largest["stages.2.0.expand.0.weight"][0] == 96
    assert smallest["stages.2.0.expand.0.weight"][0] == 48
    assert smallest["stages.2.0.depthwise.0.weight"] == (48, 1, 1, 1)
    assert "stages.2.2.expand.0.weight" in largest
    assert not any(name.startswith(("stages.2.1.", "stages.2.2.")) for name in smallest)


def test_sizes_are_rounded_as_those_of_a_level_and_double_ones_are_one_option(
    nested: NestedModel,
) -> None:
    nested = copy.copy(nested)
    nested.card = Card(divisor=32)
    options = (0.5, 0.55, 1.0)
    (choice,) = space_of(nested, width={f"{BLOCK}.expand.0": options}).choices
    assert choice == Choices("width", {f"{BLOCK}.expand.0": (96, 160)}, (("stages.2", 1),))


def test_the_last_pattern_that_fits_an_axis_counts(nested: NestedModel) -> None:
    space = space_of(nested, width={"stages.2.*.expand.0": (8, 16), f"{BLOCK}.*.0": (24,)})
    sizes = {axis: s for choice in space.choices for axis, s in choice.sizes.items()}
    assert sizes == {
        "stages.2.0.expand.0": (8, 16),
        "stages.2.2.expand.0": (8, 16),
        f"{BLOCK}.expand.0": (24,),
    }


def test_axes_that_choose_together_take_options_of_the_same_number(nested: NestedModel) -> None:
    pair = (f"{BLOCK}.expand.0", f"{BLOCK}.excite.reduce")
    width = {pair[0]: (40, 80, 160), pair[1]: (8, 24, 40)}
    space = space_of(nested, width=width, together=[pair])
    generator = random.Random(0)
    drawn = [space.draw(generator).width for _ in range(30)]
    found = {tuple(d.values()) for d in drawn if isinstance(d, dict)}
    assert found == {(40, 8), (80, 24), (160, 40)}


def test_the_count_is_that_of_different_networks(space: Space) -> None:
    # A block chooses one of 3 widths and 2 kernels; once-for-all counts alike.
    assert space.count == 6 + 6**2 + 6**3
    every = product(*(range(choice.options) for choice in space.choices))
    assert len({space.settled(picks) for picks in every}) == space.count


def test_a_count_of_many_stages_is_the_product_of_theirs(nested: NestedModel) -> None:
    stages = {"stages.1": (1, 2), "stages.2": (1, 2, 3), "stages.3": (1, 2)}
    space = space_of(nested, width={"stages.[123].*.expand.0": (0.5, 1.0)}, depth=stages)
    assert space.count == (2 + 4) * (2 + 4 + 8) * (2 + 4)


def test_a_block_that_is_left_out_chooses_nothing(nested: NestedModel, space: Space) -> None:
    generator = random.Random(3)
    for _ in range(20):
        level = space.draw(generator)
        assert isinstance(level.depth, dict)
        assert isinstance(level.width, dict)
        depth = level.depth["stages.2"]
        assert isinstance(depth, int)
        for unit in range(depth, 3):
            assert level.width[f"stages.2.{unit}.expand.0"] == (48, 80, 80)[unit]


def test_draws_of_the_same_seed_are_the_same_and_reach_every_option(space: Space) -> None:
    first, again = random.Random(5), random.Random(5)
    drawn = [space.draw_picks(first) for _ in range(200)]
    assert drawn == [space.draw_picks(again) for _ in range(200)]
    for place, choice in enumerate(space.choices):
        assert {picks[place] for picks in drawn} == set(range(choice.options))


def test_a_mutation_changes_as_many_choices_as_its_probability_says(space: Space) -> None:
    generator = random.Random(0)
    top = tuple(choice.options - 1 for choice in space.choices)
    assert space.mutated(top, generator, probability=0.0) == top
    changed = [space.mutated(top, generator, probability=1.0) != top for _ in range(50)]
    assert all(changed)


def test_a_crossing_takes_every_option_from_a_parent(space: Space) -> None:
    generator = random.Random(0)
    one, other = space.draw_picks(generator), space.draw_picks(generator)
    children = [space.crossed(one, other, generator) for _ in range(30)]
    assert len(set(children)) > 2
    for child in children:
        assert child == space.settled(child)
        fitting = zip(child, one, other, strict=True)
        assert all(pick in (a, b, 0) for pick, a, b in fitting)


def test_an_opened_part_has_the_largest_sizes(nested: NestedModel, space: Space) -> None:
    opened = space.opened({"kernel": None, "depth": 2})
    assert opened.largest() == space.largest()
    generator = random.Random(0)
    drawn = [opened.draw(generator) for _ in range(40)]
    depths = {level.depth["stages.2"] for level in drawn if isinstance(level.depth, dict)}
    assert depths == {2, 3}
    assert {c.options for c in opened.choices if c.kind == "width"} == {1}
    assert {c.options for c in opened.choices if c.kind == "kernel"} == {2}


def test_the_axes_of_a_kind_are_listed(space: Space) -> None:
    assert space.axes("width") == tuple(f"stages.2.{i}.expand.0" for i in range(3))
    assert space.axes("depth") == ("stages.2",)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "found nothing to choose"),
        (
            {"width": {"stem.9": (1,)}},
            r"space: width: no axis fits 'stem.9'.*did you mean 'stem.0'",
        ),
        ({"width": {"stages.2": (1,)}}, "space: width: no axis fits 'stages.2'"),
        ({"width": {"stem.0": ()}}, r"axis 'stem.0': expected sizes to choose from, found none"),
        ({"width": {"stem.0": (17,)}}, r"space, axis 'stem.0': expected 1 to 16 units, found 17"),
        ({"depth": {"stages.2": (4,)}}, r"axis 'stages.2': expected 1 to 3 blocks, found 4"),
        ({"kernel": {"*.kernel": (2,)}}, r"expected 1 or 3, found 2"),
        (
            {"width": {"stem.0": (8, 16), "last.0": (8,)}, "together": [("stem.0", "last.0")]},
            r"equally many sizes, found \{'stem.0': 2, 'last.0': 1\}",
        ),
        (
            {"width": {"stem.0": (8, 16)}, "together": [("stem.0",), ("stem.*",)]},
            "together: expected every axis once",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "nothing",
)
def test_a_space_that_the_network_cannot_have_is_refused(
    nested: NestedModel, asked: dict[str, dict[str, tuple[int, ...]]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        space_of(nested, **asked)
