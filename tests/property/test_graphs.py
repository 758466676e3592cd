"""Any network of any operators: its levels are the network without the rest, and done once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.graphs.checks import VARIES, check, check_levels
from benchmarks.graphs.descriptions import PIECES, WAYS, Description, Junction, Step, describe
from benchmarks.graphs.networks import build, images
from benchmarks.graphs.subjects import PropertyError, Subject
from nestedge.nested import Card, nest
from nestedge.program.graph import Ref

_steps = st.builds(Step, st.sampled_from(list(PIECES)), st.integers(0, 2**31 - 1))
_branches = st.lists(_steps, min_size=1, max_size=2).map(tuple)
_junctions = st.builds(
    Junction,
    way=st.sampled_from(WAYS),
    branches=st.tuples(_branches, _branches),
    number=st.integers(0, 2**31 - 1),
)
_items = st.one_of(_steps, _steps, _steps, _junctions)


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    """A few pieces between a convolution and outputs."""
    dims = draw(st.sampled_from([1, 2, 3]))
    return Description(
        dims=dims,
        units=draw(st.integers(2, 6)),
        scale=draw(st.sampled_from([2, 3])),
        side=draw(st.sampled_from({1: [6, 8], 2: [4, 6], 3: [4]}[dims])),
        steps=tuple(draw(st.lists(_items, min_size=1, max_size=4))),
        head=draw(st.sampled_from(["map", "pooled", "flat", "two"])),
        # Of every second number a level is nested again, and every eighth network is saved.
        seed=draw(st.integers(0, 1000)),
    )


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(descriptions())
def test_a_level_of_any_graph_is_the_graph_without_the_rest(drawn: Description) -> None:
    record = check(drawn)
    assert record["levels"]
    assert record["refused"] == {}


PLAIN = replace(
    describe(0),
    dims=2,
    units=4,
    scale=2,
    side=4,
    steps=(Step("convolution", 3), Step("pair", 5), Step("last norm", 7)),
    head="pooled",
)


def _subject(seed: int) -> Subject:
    description = replace(PLAIN, seed=seed)
    module, x = build(description), images(description)
    return Subject(description, module, x, nest(module, x, {}, card=Card(divisor=1)))


def test_a_graph_is_compared_with_every_oracle_and_depends_on_its_input() -> None:
    records = [check_levels(_subject(seed)) for seed in range(4)]
    levels = [level for record in records for level in record["levels"].values()]
    assert all(isinstance(record["twin"], float) for record in records)
    assert all(record["varies"] > VARIES for record in records)
    # A norm over a single channel that is left, or a mask, may leave nothing of the input.
    assert sum(level["varies"] > VARIES for level in levels) > len(levels) / 2
    assert any(level["zeroed"] is None for level in levels)
    assert any(level["zeroed"] is not None for level in levels)
    assert any(level["masked"] for level in levels)


def test_a_level_that_is_another_network_is_noticed() -> None:
    subject = _subject(0)
    program = subject.nested.elastic.program
    (conv, *_) = [node for node in program.nodes if node.op.startswith("aten.conv2d")]
    # The user's module is changed after it was nested, as if nestedge had lost what it had read.
    assert isinstance(conv.args[0], Ref)
    state = subject.module.state_dict()
    state["stem.weight"].mul_(1.01)
    with pytest.raises(PropertyError, match="the full network: error"):
        check_levels(subject)
