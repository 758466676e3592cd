from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nestedge.axes.planes import at, compact, reduced, varying
from nestedge.axes.tags import FROZEN, Tags, Ties, inserted, squeezed


def _along(ties: Ties, size: int, dim: int, shape: tuple[int, ...]) -> Tags:
    return Tags(shape, (at(ties.fresh(size), dim, shape),))


def test_a_weight_has_a_plane_for_every_dimension_longer_than_one() -> None:
    ties = Ties()
    tags = ties.weight((4, 1, 3))
    assert [varying(plane) for plane in tags.planes] == [(0,), (2,)]
    assert ties.count == 1 + 4 + 3
    assert all(plane.shape == (4, 1, 3) for plane in tags.planes)


def test_a_plane_is_compact_where_it_is_constant() -> None:
    plane = torch.tensor([[1, 1, 1], [2, 2, 2]])
    found = compact(plane)
    assert varying(found) == (0,)
    assert torch.equal(found, plane)
    assert reduced(found).shape == (2, 1)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_labels_are_the_smallest_unit_of_those_tied(pairs: list[tuple[int, int]]) -> None:
    ties = Ties(count=20)
    group = {i: {i} for i in range(20)}
    for one, other in pairs:
        ties.tie(torch.tensor([one]), torch.tensor([other]))
        joined = group[one] | group[other]
        group.update(dict.fromkeys(joined, joined))
    assert ties.labels().tolist() == [min(group[i]) for i in range(20)]


def test_units_that_meet_are_tied() -> None:
    ties = Ties()
    one, other = _along(ties, 3, 1, (2, 3, 5)), ties.weight((3, 1))
    ties.join(one, other)
    label = ties.labels()
    assert label[1:4].tolist() == label[4:7].tolist() == [1, 2, 3]


def test_units_that_meet_entries_always_there_are_frozen() -> None:
    ties = Ties()
    ties.join(_along(ties, 3, 1, (2, 3)), Tags((2, 3)))
    assert (ties.labels() == FROZEN).all()


def test_units_that_meet_a_broadcast_entry_are_free() -> None:
    ties = Ties()
    found = ties.join(_along(ties, 3, 1, (2, 3)), Tags((2, 1)))
    assert ties.labels().tolist() == [0, 1, 2, 3]
    assert len(found.planes) == 1


def test_heads_stay_elastic_and_their_width_does_not() -> None:
    ties = Ties()
    plane = ties.fresh(6).view(3, 2)
    found = ties.isolate(Tags((3, 2), (plane,)), [1])
    assert varying(found.planes[0]) == (0,)
    assert ties.labels().tolist() == [0, 1, 1, 3, 3, 5, 5]


def test_freezing_pixels_of_a_shuffle_keeps_its_channels_elastic() -> None:
    ties = Ties()
    plane = ties.fresh(8).view(2, 2, 2)
    ties.freeze_dims(Tags((2, 2, 2), (plane,)), [1, 2])
    assert ties.labels().tolist() == [0, 1, 1, 1, 1, 5, 5, 5, 5]


def test_of_a_merged_dimension_one_stays_elastic() -> None:
    ties = Ties()
    one, other = ties.fresh(2).repeat_interleave(3), ties.fresh(3).repeat(2)
    found = ties.along(Tags((6,), (one, other)), 0)
    assert found.tolist() == [1, 1, 1, 2, 2, 2]
    assert ties.labels().tolist() == [0, 1, 2, 0, 0, 0]


def test_a_reduced_dimension_has_no_units_any_more() -> None:
    ties = Ties()
    found = ties.reduce(_along(ties, 3, 1, (2, 3, 4)), [1])
    assert found == Tags((2, 1, 4), ())
    assert ties.labels().tolist() == [0, 1, 2, 3]


def test_an_entry_cut_out_is_always_there() -> None:
    ties = Ties()
    plane = at(ties.fresh(3), 0, (3,))
    ties.value((), [plane[1]])
    assert ties.labels().tolist() == [0, 1, 0, 3]


def test_a_dimension_of_size_one_comes_and_goes() -> None:
    ties = Ties()
    value = _along(ties, 3, 0, (3,))
    there = inserted(value, 0)
    assert there.shape == (1, 3)
    back = squeezed(there, [0], ties)
    assert back.shape == (3,)
    assert torch.equal(back.planes[0], value.planes[0])


def test_resolving_leaves_units_along_one_dimension_each() -> None:
    ties = Ties()
    plane = ties.fresh(8).view(2, 4)
    ties.value((2, 4), [plane])
    # Shuffled channels: groups that are tied already need no tie across them.
    ties.value((4, 2), [plane.t()])
    label = ties.resolve()
    assert label.tolist() == [0, 1, 1, 1, 1, 5, 5, 5, 5]


@pytest.mark.parametrize("shape", [(2, 3), (4, 1, 2)])
def test_a_value_without_planes_stands_for_entries_always_there(shape: tuple[int, ...]) -> None:
    base = Tags(shape).base()
    assert base.shape == shape
    assert np.all(base.numpy() == FROZEN)
