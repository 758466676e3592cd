from __future__ import annotations

import math

import pytest
import torch
from torch.optim import SGD

from nestedge.errors import UsageError
from nestedge.training.objectives import Step
from nestedge.training.shrinking import (
    Phase,
    Shrinking,
    beta,
    cosine_rate,
    delayed_shrinking,
    early_shrinking,
    progressive_shrinking,
    rate_schedule,
    rates_in_turn,
)

RATE = cosine_rate(2.6, floor=2.5e-3)


def _step(epoch: int, index: int, *, epochs: int = 270, steps: int | None = 10) -> Step:
    number = epoch * (steps or 0) + index
    return Step(epoch, epochs, index, steps, number, seed=0)


@pytest.mark.parametrize(
    ("epoch", "index", "expected"),
    [
        (0, 0, 0.0),
        (144, 9, 0.0),
        (145, 0, 0.01870),
        (147, 5, 0.50254),
        (149, 9, 0.99862),
        (150, 0, 1.0),
        (269, 9, 1.0),
    ],
)
def test_beta_climbs_as_in_the_published_code(epoch: int, index: int, expected: float) -> None:
    found = beta(_step(epoch, index), warmup=150, ramp=5, rate=RATE)
    assert found == pytest.approx(expected, abs=5e-6)


def test_beta_times_the_rate_is_a_straight_line_to_the_rate_at_the_end_of_the_ramp() -> None:
    line = [
        beta(_step(e, i), warmup=150, ramp=5, rate=RATE) * RATE((e * 10 + i) / 2700)
        for e in range(145, 150)
        for i in range(10)
    ]
    assert line[-1] == pytest.approx(1.07426, abs=5e-6)
    assert line == pytest.approx([line[-1] * (n + 1) / 50 for n in range(50)])


def test_without_a_ramp_subnets_have_their_full_weight_at_once() -> None:
    shrinking = delayed_shrinking(150, ramp=0)
    assert shrinking.begins == 150
    assert shrinking.weight(_step(150, 0, steps=None), RATE) == 1.0


def test_a_ramp_needs_to_know_the_length_of_an_epoch() -> None:
    with pytest.raises(UsageError, match="ramp: expected batches of a known number"):
        beta(_step(0, 0, steps=None), warmup=2, ramp=2, rate=RATE)


def test_a_ramp_refuses_a_rate_of_nothing() -> None:
    with pytest.raises(UsageError, match="rate: expected above 0 at epoch 1, found"):
        beta(_step(1, 0), warmup=2, ramp=2, rate=lambda done: 0.0)


def test_the_settings_are_those_of_the_three_methods() -> None:
    delayed, early, progressive = (
        delayed_shrinking(150),
        early_shrinking(),
        progressive_shrinking(warmup=180),
    )
    assert (delayed.begins, delayed.ramp, delayed.phases[0].nets) == (145, 5, 4)
    assert delayed.always == early.always == ("largest", "smallest")
    assert (early.begins, early.ramp, early.phases) == (0, 0, (Phase(0, 4),))
    assert early.weight(_step(0, 0), RATE) == 1.0
    assert [(p.start, p.nets) for p in progressive.phases] == [
        (180, 1),
        (300, 2),
        (325, 2),
        (445, 4),
        (470, 4),
    ]
    opened = [dict(phase.opened or {}) for phase in progressive.phases]
    assert opened[0] == {"kernel": None}
    assert opened[1] == {"kernel": None, "depth": 2}
    assert opened[3]["width"] == 2
    assert opened[4] == dict.fromkeys(("kernel", "depth", "width", "head_width", "branches"))
    assert (progressive.always, progressive.labels) == ((), 1.0)


def test_a_phase_of_no_epochs_is_left_out() -> None:
    phases = progressive_shrinking(kernel=0, depth=(0, 3)).phases
    assert [(p.start, p.nets) for p in phases] == [(0, 2), (3, 4), (28, 4)]


def test_an_epoch_is_in_the_last_phase_that_has_started() -> None:
    shrinking = Shrinking((Phase(2, 2), Phase(5, 3)))
    assert [shrinking.phase(epoch) for epoch in (0, 1, 2, 4, 5, 9)] == [None, None, 0, 0, 1, 1]


def test_the_schedule_gives_the_optimizer_the_rate() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.6)
    schedule = rate_schedule(optimizer, RATE, steps=40)
    for step in range(40):
        cosine = 1.3 * (1 + math.cos(math.pi * step / 40))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(max(cosine, 2.5e-3))
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-3)


def test_rates_in_turn_each_begin_anew() -> None:
    rate = rates_in_turn([(120, cosine_rate(3e-2)), (30, cosine_rate(7.5e-3))])
    expected = [3e-2, 1.5e-2, 7.5e-3, 3.75e-3, 0.0]
    assert [rate(e / 150) for e in (0, 60, 120, 135, 150)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: delayed_shrinking(3, ramp=5), "ramp: expected 0 to 3 epochs"),
        (lambda: Shrinking(()), r"phases: expected starts that ascend.*found \[\]"),
        (lambda: Shrinking((Phase(3, 2), Phase(3, 2))), r"found \[3, 3\]"),
        (lambda: early_shrinking(nets=1), "expected 2 or more nets a step, found 1"),
        (lambda: Shrinking((Phase(0, 2),), temperature=0.0), "a temperature above 0"),
    ],
    ids=["ramp", "no phase", "phases", "nets", "temperature"],
)
def test_settings_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match=message):
        make()


def test_a_rate_that_begins_with_nothing_is_refused() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UsageError, match="expected a rate above 0 to begin with"):
        rate_schedule(optimizer, lambda done: done, steps=3)
