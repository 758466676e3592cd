from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestedge.errors import UsageError
from nestedge.intervals import Intervals, intervals_of, is_subset, merged
from nestedge.layouts import Axis, Run, TensorLayout
from nestedge.nesting import Choice, Nesting

Mask = npt.NDArray[np.bool_]


@st.composite
def runs(draw: st.DrawFn, axes: dict[str, Axis]) -> tuple[Run, ...]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([None, *axes]))
        size = axes[name].size if name else 4
        start = draw(st.integers(0, size - 1))
        stop = draw(st.integers(start + 1, size))
        found.append(Run(name, start, stop, draw(st.integers(1, 3)) if name else 1))
    return tuple(found)


@st.composite
def layouts(draw: st.DrawFn) -> Nesting:
    """A few axes, each whole in a tensor of its own, and tensors of any runs of them."""
    axes = {f"a{i}": Axis(draw(st.integers(1, 6))) for i in range(draw(st.integers(1, 3)))}
    tensors = {n: TensorLayout(((Run(n, 0, axis.size),), ())) for n, axis in axes.items()}
    depth = Axis(3, kind="depth")
    for i in range(draw(st.integers(0, 3))):
        dims = tuple(draw(runs(axes)) for _ in range(draw(st.integers(1, 2))))
        requires = (("depth", draw(st.integers(0, 2))),) if draw(st.booleans()) else ()
        serves = tuple(("outputs", unit) for unit in draw(st.sets(st.integers(0, 2))))
        tensors[f"t{i}"] = TensorLayout(dims, requires, serves=serves)
    for unit in range(3):
        tensors[f"block{unit}"] = TensorLayout(((),), (("depth", unit),))
        tensors[f"head{unit}"] = TensorLayout(((),), serves=(("outputs", unit),))
    outputs = Axis(3, kind="outputs")
    return Nesting({**axes, "depth": depth, "outputs": outputs}, tensors)


@st.composite
def kept(draw: st.DrawFn, size: int) -> Intervals:
    live = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    return intervals_of(np.array(live))


@st.composite
def nestings(draw: st.DrawFn) -> Nesting:
    nesting = draw(layouts())
    for i in range(draw(st.integers(1, 3))):
        named = {n: draw(kept(a.size)) for n, a in nesting.axes.items() if draw(st.booleans())}
        try:
            nesting = nesting.with_level(f"l{i}", Choice(named))
        except UsageError:  # nothing left of a tensor
            nesting = nesting.with_level(f"l{i}", Choice())
    return nesting


def _entries(nesting: Nesting, level: str, tensor: str) -> Mask | None:
    """Which entries of a tensor a level uses, one by one."""
    live = nesting.live(level)
    layout = nesting.tensors[tensor]
    if not all(live[axis][unit] for axis, unit in layout.requires):
        return None
    if layout.serves and not any(live[axis][unit] for axis, unit in layout.serves):
        return None
    rows = []
    for dim in layout.dims:
        row: list[bool] = []
        for run in dim:
            for unit in range(run.start, run.stop):
                row += [run.axis is None or bool(live[run.axis][unit])] * run.repeat
        rows.append(row or [True])
    found: Mask = np.array([all(point) for point in product(*rows)])
    return found


def _used(nesting: Nesting, level: str, tensor: str) -> Mask | None:
    """The same, from the intervals of `uses`."""
    uses = nesting.uses(level, tensor)
    if uses is None:
        return None
    rows = []
    for dim, intervals in zip(nesting.tensors[tensor].dims, uses, strict=True):
        size = sum(run.entries for run in dim) or 1
        row = np.full(size, intervals is None)
        for start, stop in intervals or ():
            row[start:stop] = True
        rows.append(row.tolist())
    found: Mask = np.array([all(point) for point in product(*rows)])
    return found


@settings(max_examples=100, deadline=None)
@given(nestings())
def test_the_intervals_used_are_those_of_the_live_units(nesting: Nesting) -> None:
    for level in nesting.levels:
        for tensor in nesting.tensors:
            expected, found = _entries(nesting, level, tensor), _used(nesting, level, tensor)
            assert (expected is None) == (found is None)
            if expected is not None and found is not None:
                assert (expected == found).all(), (level, tensor)


@settings(max_examples=100, deadline=None)
@given(nestings())
def test_a_level_contains_another_where_it_uses_all_that_the_other_uses(nesting: Nesting) -> None:
    for large in nesting.levels:
        for small in nesting.levels:
            every = all(
                _covers(_entries(nesting, large, tensor), _entries(nesting, small, tensor))
                for tensor in nesting.tensors
            )
            assert nesting.contains(large, small) == every, (large, small)
            assert ((small, large) in nesting.order()) == (every and small != large)


def _covers(large: Mask | None, small: Mask | None) -> bool:
    return small is None or (large is not None and not (small & ~large).any())


@settings(max_examples=100, deadline=None)
@given(nestings(), st.data())
def test_another_level_changes_nothing_for_those_before(
    nesting: Nesting, data: st.DataObject
) -> None:
    before = {(a, t): nesting.uses(a, t) for a in nesting.levels for t in nesting.tensors}
    axis = data.draw(st.sampled_from(sorted(nesting.axes)))
    try:
        wider = nesting.with_level("new", Choice({axis: data.draw(kept(nesting.axes[axis].size))}))
    except UsageError:
        return
    assert {(a, t): wider.uses(a, t) for a, t in before} == before
    for name, bounds in nesting.segments.items():
        assert set(bounds) <= set(wider.segments[name])
    assert "new" not in nesting.levels


@settings(max_examples=100, deadline=None)
@given(nestings())
def test_tiles_are_the_boxes_that_all_levels_use_as_a_whole_or_not_at_all(nesting: Nesting) -> None:
    for tensor, layout in nesting.tensors.items():
        count = 1
        for dim in layout.dims:
            pieces = 0
            last: str | None = "nothing"
            for run in dim:
                bounds = nesting.segments[run.axis] if run.axis else ()
                pieces += len([b for b in bounds if run.start < b < run.stop])
                chosen = [name for name, c in nesting.levels.items() if run.axis in c.kept]
                # What every level has whole is one piece with what is beside it and likewise.
                here = run.axis if chosen else None
                pieces += not (here is None and last is None)
                last = here
            count *= max(1, pieces)
        assert nesting.tiles(tensor) == count


def _two_dimensional() -> Nesting:
    axes = {"width": Axis(8), "depth": Axis(2, kind="depth")}
    tensors = {
        "stem": TensorLayout(((Run("width", 0, 8),), ())),
        "block": TensorLayout(((Run("width", 0, 8, 2),),), (("depth", 1),)),
    }
    nesting = Nesting(axes, tensors)
    for name, width, depth in [("s", 2, 1), ("narrow", 4, 2), ("shallow", 8, 1), ("full", 8, 2)]:
        nesting = nesting.with_level(name, Choice({"width": ((0, width),), "depth": ((0, depth),)}))
    return nesting


def test_levels_of_width_and_depth_are_partially_ordered() -> None:
    nesting = _two_dimensional()
    assert set(nesting.order()) == {
        ("s", "narrow"),
        ("s", "shallow"),
        ("s", "full"),
        ("narrow", "full"),
        ("shallow", "full"),
    }
    assert not nesting.is_chain()


def test_levels_of_width_alone_are_a_chain() -> None:
    nesting = Nesting({"a": Axis(4)}, {"t": TensorLayout(((Run("a", 0, 4),),))})
    for width in (1, 3, 4):
        nesting = nesting.with_level(f"w{width}", Choice({"a": ((0, width),)}))
    assert nesting.is_chain()
    assert nesting.segments == {"a": (0, 1, 3, 4)}
    assert nesting.tiles("t") == 3


def test_a_tensor_of_a_dropped_block_is_not_used() -> None:
    nesting = _two_dimensional()
    assert nesting.uses("shallow", "block") is None
    assert nesting.uses("narrow", "block") == (((0, 8),),)


WRONG: dict[str, tuple[str, Choice, str]] = {
    "taken": ("full", Choice(), "level 'full' exists already"),
    "axis": ("x", Choice({"widht": ((0, 1),)}), "no axis 'widht'; did you mean 'width'"),
    "beyond": ("x", Choice({"width": ((0, 9),)}), r"within 0\.\.8, found \[\[0, 9\]\]"),
    "below": ("x", Choice({"width": ((-1, 4),)}), r"within 0\.\.8"),
    "touching": ("x", Choice({"width": ((0, 2), (2, 4))}), "ascending, disjoint intervals"),
    "descending": ("x", Choice({"width": ((4, 6), (0, 2))}), "ascending, disjoint intervals"),
    "empty": ("x", Choice({"width": ()}), "level 'x' leaves nothing of 'stem'"),
}


@pytest.mark.parametrize(("name", "choice", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_level_that_cannot_be_is_refused(name: str, choice: Choice, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _two_dimensional().with_level(name, choice)


def test_an_unknown_level_is_refused_with_a_proposal() -> None:
    with pytest.raises(UsageError, match=r"no level 'ful'; .*did you mean 'full'"):
        _two_dimensional().uses("ful", "stem")


@given(st.lists(st.booleans(), max_size=12), st.lists(st.booleans(), max_size=12))
def test_intervals_are_the_mask_they_come_from(one: list[bool], other: list[bool]) -> None:
    size = min(len(one), len(other))
    a, b = np.array(one[:size], dtype=bool), np.array(other[:size], dtype=bool)
    back = np.zeros(size, dtype=bool)
    for start, stop in intervals_of(a):
        back[start:stop] = True
    assert (back == a).all()
    assert merged(intervals_of(a)) == intervals_of(a)
    assert is_subset(intervals_of(a), intervals_of(b)) == (not (a & ~b).any())
