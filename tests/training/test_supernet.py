from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from nestedge.errors import UsageError
from nestedge.nested import NestedModel
from nestedge.training import Objective, Step, recalibrate, train
from nestedge.training.accuracy import accuracy
from nestedge.training.batches import Batch
from nestedge.training.shrinking import (
    Phase,
    Shrinking,
    beta,
    cosine_rate,
    delayed_shrinking,
    early_shrinking,
    progressive_shrinking,
    rate_schedule,
)
from nestedge.training.sorting import sort_after
from nestedge.training.space import Space, space_of
from nestedge.training.subnets import Subnets
from nestedge.training.supernet import frozen, shrinking_objective
from tests.networks import (
    cross_entropy,
    images,
    logits_of,
    nested_perceptron,
    nested_resnet,
    vectors,
)

RATE = cosine_rate(0.1)
WIDTHS = (4, 8, 12, 16)


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    return nested_perceptron(dropout=0.0).train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


@pytest.fixture
def subnets(nested: NestedModel) -> Iterator[Subnets]:
    with Subnets(nested) as found:
        yield found


@pytest.fixture
def space(nested: NestedModel) -> Space:
    return space_of(nested, width={"first": WIDTHS})


def _step(epoch: int, index: int = 0) -> Step:
    return Step(epoch, 10, index, 4, epoch * 4 + index, seed=3)


def _logits(nested: NestedModel, hidden: int, inputs: torch.Tensor) -> torch.Tensor:
    """The logits of the first hidden units, written out; differentiable."""
    shared = dict(nested.shared.named_parameters())
    features = F.relu(inputs @ shared["first.weight"][:hidden].T + shared["first.bias"][:hidden])
    return features @ shared["last.weight"][:, :hidden].T + shared["last.bias"]


def _gradients(nested: NestedModel, losses: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    total = torch.stack(list(losses)).sum()
    return list(torch.autograd.grad(total, list(nested.parameters())))


def _objective(shrinking: Shrinking, space: Space, subnets: Subnets, **options: Any) -> Objective:
    return shrinking_objective(
        shrinking, space, cross_entropy, subnets=subnets, rate=RATE, logits=logits_of, **options
    )


def _widths_drawn(space: Space, step: Step, count: int) -> list[int]:
    generator = step.generator()
    found = [space.draw(generator).width for _ in range(count)]
    first = [sizes["first"] for sizes in found if isinstance(sizes, dict)]
    return [size for size in first if isinstance(size, int)]


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("index", [0, 3])
def test_on_the_ramp_subnets_learn_soft_labels_times_beta(
    nested: NestedModel,
    space: Space,
    subnets: Subnets,
    index: int,
    aggregation: Literal["sum", "mean"],
) -> None:
    inputs, target = vectors(16)
    step = _step(5, index)
    settings = delayed_shrinking(6, ramp=2)
    shrinking = replace(settings, temperature=2.0, aggregation=aggregation)
    losses = list(_objective(shrinking, space, subnets)(nested, inputs, target, step))
    factor = beta(step, warmup=6, ramp=2, rate=RATE)
    assert 0 < factor < 1
    teacher = _logits(nested, 16, inputs)
    soft = (teacher.detach() / 2).softmax(1)
    widths = [4, *_widths_drawn(space, step, 2)]
    students = [(_logits(nested, width, inputs) / 2).log_softmax(1) for width in widths]
    expected = [
        F.cross_entropy(teacher, target),
        *(-factor * 4 * (soft * student).sum(1).mean() for student in students),
    ]
    share = 0.25 if aggregation == "mean" else 1.0
    expected = [share * loss for loss in expected]
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=1e-12)
    found = _gradients(nested, losses)
    torch.testing.assert_close(found, _gradients(nested, expected), rtol=1e-9, atol=1e-12)


def test_before_the_ramp_the_full_network_learns_alone(
    nested: NestedModel, space: Space, subnets: Subnets
) -> None:
    objective = _objective(delayed_shrinking(6, ramp=2), space, subnets)
    inputs, target = vectors(16)
    (loss,) = objective(nested, inputs, target, _step(3, 3))
    torch.testing.assert_close(loss, F.cross_entropy(_logits(nested, 16, inputs), target))
    assert len(list(objective(nested, inputs, target, _step(4)))) == 4


def test_shrinking_from_the_first_step_has_no_ramp(
    nested: NestedModel, space: Space, subnets: Subnets
) -> None:
    inputs, target = vectors(16)
    objective = _objective(early_shrinking(nets=2), space, subnets)
    step = replace(_step(0), steps=None)
    _, smallest = objective(nested, inputs, target, step)
    soft = _logits(nested, 16, inputs).detach().softmax(1)
    torch.testing.assert_close(smallest, F.cross_entropy(_logits(nested, 4, inputs), soft))


def test_progressive_shrinking_opens_widths_and_learns_labels_and_a_frozen_teacher(
    nested: NestedModel, space: Space, subnets: Subnets
) -> None:
    inputs, target = vectors(16)
    soft = _logits(nested, 16, inputs).detach().softmax(1)
    teacher = frozen(nested)
    with torch.no_grad():
        nested.get_parameter("shared.last.weight").mul_(0.5)
    shrinking = progressive_shrinking(kernel=1, depth=(0, 0), expand=(1, 1))
    objective = _objective(shrinking, space, subnets, teacher=teacher)
    for epoch, widths in {0: (16,), 1: (12, 16), 2: WIDTHS}.items():
        part = space_of(nested, width={"first": widths})
        nets = 1 if epoch == 0 else 4
        logits = [
            _logits(nested, width, inputs) for width in _widths_drawn(part, _step(epoch), nets)
        ]
        expected = [F.cross_entropy(y, soft) + F.cross_entropy(y, target) for y in logits]
        found = list(objective(nested, inputs, target, _step(epoch)))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_draws_depend_on_the_step_and_nothing_else(
    nested: NestedModel, space: Space, subnets: Subnets
) -> None:
    batch = vectors(4)
    objective = _objective(early_shrinking(nets=6), space, subnets)
    first = [list(objective(nested, *batch, _step(2, index))) for index in range(4)]
    again = list(objective(nested, *batch, _step(2, 1)))
    torch.testing.assert_close(again, first[1], rtol=0, atol=0)
    assert len({tuple(loss.item() for loss in losses) for losses in first}) > 1


def test_only_the_largest_network_drops_values() -> None:
    nested = nested_perceptron(dropout=0.5).train()
    space = space_of(nested, width={"first": WIDTHS})
    inputs, target = vectors(16)
    with Subnets(nested) as subnets:
        teacher = frozen(nested)
        objective = _objective(early_shrinking(nets=2), space, subnets, teacher=teacher)
        runs = [list(objective(nested, inputs, target, _step(0))) for _ in range(2)]
    assert not torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_no_drawn_network_without_the_largest_or_a_teacher(space: Space, subnets: Subnets) -> None:
    with pytest.raises(UsageError, match=r"teacher: expected one.*give frozen\(nested\)"):
        _objective(Shrinking((Phase(0, 2),), always=()), space, subnets)


def test_a_supernet_is_trained_from_full_network_to_recalibrated_subnets() -> None:
    nested = nested_resnet()
    for level in nested.levels:
        nested.remove_level(level)
    widths = {"*": (0.5, 1.0)}
    space = space_of(nested, width=widths, depth={"layer*": (1, 2)})
    batches: list[Batch] = [images(16, seed=seed) for seed in range(2)]
    untrained = copy.deepcopy(nested)
    optimizer = SGD(nested.parameters(), 0.05, momentum=0.9)
    rate, shrinking = cosine_rate(0.05, floor=1e-3), delayed_shrinking(4, ramp=2)
    before = nested.levels
    with Subnets(nested, limit=3) as subnets:
        reports = train(
            nested,
            batches,
            epochs=8,
            objective=shrinking_objective(
                shrinking, space, F.cross_entropy, subnets=subnets, rate=rate
            ),
            optimizer=optimizer,
            schedule=rate_schedule(optimizer, rate, steps=16),
            after_epoch=sort_after(
                shrinking.begins - 1, nested, axes=["layer*.conv1"], optimizer=optimizer
            ),
        )
    assert nested.levels == before
    losses = [report.loss for report in reports]
    nested.add_level("smallest", space.smallest(), batch_norm="statistics")
    recalibrate(nested, batches)
    assert accuracy(nested, batches) > accuracy(untrained, batches) + 20
    after = losses[shrinking.begins + shrinking.ramp :]
    assert len(after) == 4
    assert after[-1] < after[0]
