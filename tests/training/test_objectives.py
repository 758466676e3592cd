from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from nestedge.errors import UsageError
from nestedge.materialization import state_dict
from nestedge.nested import NestedModel
from nestedge.training import (
    Objective,
    Step,
    full_objective,
    joint_objective,
    labelled_loss,
    multitask_objective,
    sandwich_objective,
)
from tests.networks import cross_entropy, logits_of, nested_perceptron, vectors


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    return nested_perceptron(dropout=0.0).train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


def _step(number: int = 0, *, seed: int = 0) -> Step:
    return Step(epoch=0, epochs=1, index=number, steps=None, number=number, seed=seed)


def _logits(nested: NestedModel, hidden: int, inputs: torch.Tensor) -> torch.Tensor:
    """A level's logits, written out; differentiable in the shared tensors."""
    shared = dict(nested.shared.named_parameters())
    features = F.relu(inputs @ shared["first.weight"][:hidden].T + shared["first.bias"][:hidden])
    return features @ shared["last.weight"][:, :hidden].T + shared["last.bias"]


def _hard(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -logits.log_softmax(1)[torch.arange(len(target)), target].mean()


def _gradients(nested: NestedModel, losses: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    total = torch.stack(list(losses)).sum()
    return list(torch.autograd.grad(total, list(nested.parameters())))


def _assert_same_gradients(
    nested: NestedModel, objective: Objective, expected: Sequence[torch.Tensor]
) -> None:
    inputs, target = vectors(16)
    losses = list(objective(nested, inputs, target, _step()))
    for loss, wanted in zip(losses, expected, strict=True):
        torch.testing.assert_close(loss, wanted)
    found = _gradients(nested, losses)
    torch.testing.assert_close(found, _gradients(nested, expected), rtol=1e-9, atol=1e-12)


def test_the_joint_objective_is_the_mean_of_the_levels_losses(nested: NestedModel) -> None:
    inputs, target = vectors(16)
    expected = [_hard(_logits(nested, h, inputs), target) / 3 for h in (4, 8, 16)]
    objective = joint_objective(("tiny", "small", "full"), cross_entropy)
    _assert_same_gradients(nested, objective, expected)


def test_in_the_sandwich_the_largest_learns_labels_and_the_others_its_soft_ones(
    nested: NestedModel,
) -> None:
    inputs, target = vectors(16)
    teacher = _logits(nested, 16, inputs)
    soft = teacher.detach().exp() / teacher.detach().exp().sum(1, keepdim=True)
    students = [_logits(nested, h, inputs) for h in (4, 8)]
    expected = [
        _hard(teacher, target),
        *(-(soft * logits.log_softmax(1)).sum(1).mean() for logits in students),
    ]
    objective = sandwich_objective(
        cross_entropy, largest="full", smallest="tiny", between=["small"], logits=logits_of
    )
    _assert_same_gradients(nested, objective, expected)


def _levels_run(
    nested: NestedModel,
    objective: Objective,
    monkeypatch: pytest.MonkeyPatch,
    *,
    batches: int,
    seed: int = 0,
) -> list[tuple[str, ...]]:
    """Which levels an objective runs, batch by batch."""
    entered: list[str] = []
    entering = nested.at

    @contextmanager
    def recorded(*levels: str) -> Iterator[NestedModel]:
        entered.extend(levels)
        with entering(*levels) as model:
            yield model

    monkeypatch.setattr(nested, "at", recorded)
    found = []
    for number in range(batches):
        entered.clear()
        list(objective(nested, *vectors(2), _step(number, seed=seed)))
        found.append(tuple(entered))
    monkeypatch.undo()
    return found


def _drawing(between: Sequence[str], *, drawn: int) -> Objective:
    return sandwich_objective(
        cross_entropy,
        largest="full",
        smallest="tiny",
        between=between,
        drawn=drawn,
        logits=logits_of,
    )


def test_the_sandwich_draws_levels_between_anew_for_every_batch(
    nested: NestedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = ("small", "medium")
    runs = _levels_run(nested, _drawing(between, drawn=1), monkeypatch, batches=20)
    assert {run[:2] for run in runs} == {("full", "tiny")}
    assert {run[2:] for run in runs} == {("small",), ("medium",)}
    again = _levels_run(nested, _drawing(between, drawn=1), monkeypatch, batches=20)
    other = _levels_run(nested, _drawing(between, drawn=1), monkeypatch, batches=20, seed=1)
    assert again == runs != other


@pytest.mark.parametrize(("drawn", "expected"), [(0, 0), (2, 2), (5, 2)])
def test_the_sandwich_draws_no_level_twice(
    nested: NestedModel, monkeypatch: pytest.MonkeyPatch, drawn: int, expected: int
) -> None:
    objective = _drawing(("small", "medium"), drawn=drawn)
    for run in _levels_run(nested, objective, monkeypatch, batches=5):
        assert len(set(run)) == len(run) == 2 + expected


def test_drawing_levels_leaves_the_global_generators_alone(nested: NestedModel) -> None:
    before = random.getstate(), torch.get_rng_state()
    list(_drawing(("small", "medium"), drawn=1)(nested, *vectors(2), _step()))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_an_unknown_level_is_refused_with_a_proposal(nested: NestedModel) -> None:
    with pytest.raises(UsageError, match=r"no level 'smal'.*did you mean 'small'"):
        list(joint_objective(["smal"], cross_entropy)(nested, *vectors(2), _step()))


def test_objectives_refuse_level_lists_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="expected at least one level to train, found none"):
        joint_objective([], cross_entropy)
    with pytest.raises(UsageError, match=r"others between, found \['full', 'full'\]"):
        sandwich_objective(cross_entropy, largest="full", smallest="full")
    with pytest.raises(UsageError, match="drawn: expected 0 or more levels, found -1"):
        sandwich_objective(cross_entropy, largest="full", smallest="tiny", drawn=-1)


def test_the_full_objective_is_the_loss_of_the_full_network_alone(nested: NestedModel) -> None:
    inputs, target = vectors(16)
    expected = _hard(_logits(nested, 16, inputs), target)
    _assert_same_gradients(nested, full_objective(cross_entropy), [expected])


def test_every_level_may_have_a_loss_of_its_own(nested: NestedModel) -> None:
    inputs, target = vectors(16)
    coarse = labelled_loss("logits", lambda y, t: _hard(y, t // 2))
    losses = {"tiny": coarse, "full": labelled_loss("logits", _hard)}
    labels = {"logits": target}
    expected = [
        _hard(_logits(nested, 4, inputs), target // 2) / 2,
        _hard(_logits(nested, 16, inputs), target) / 2,
    ]
    objective = joint_objective(("tiny", "full"), losses)
    found = list(objective(nested, inputs, labels, _step()))
    torch.testing.assert_close(found, expected)


def test_levels_may_learn_tasks_of_their_own(nested: NestedModel) -> None:
    (first, labels), (second, others) = vectors(16), vectors(8, seed=1)
    objective = multitask_objective(("tiny", "full"), cross_entropy)
    inputs, target = {"tiny": first, "full": second}, {"tiny": labels, "full": others}
    found = list(objective(nested, inputs, target, _step()))
    expected = [
        _hard(_logits(nested, 4, first), labels) / 2,
        _hard(_logits(nested, 16, second), others) / 2,
    ]
    torch.testing.assert_close(found, expected)


def test_labels_that_a_level_lacks_are_refused(nested: NestedModel) -> None:
    inputs, target = vectors(2)
    objective = joint_objective(["tiny"], labelled_loss("logits", _hard))
    with pytest.raises(UsageError, match="target: expected a dict with 'logits', found a Tensor"):
        list(objective(nested, inputs, target, _step()))
    with pytest.raises(UsageError, match=r"found \['logit'\]; did you mean 'logit'"):
        list(objective(nested, inputs, {"logit": target}, _step()))
    both = multitask_objective(["tiny", "full"], cross_entropy)
    with pytest.raises(UsageError, match=r"inputs: expected a dict with 'full', found \['tiny'\]"):
        list(both(nested, {"tiny": inputs}, {"tiny": target}, _step()))
    with pytest.raises(UsageError, match=r"one for each of .*, found none for 'full'"):
        joint_objective(["tiny", "full"], {"tiny": _hard})


def test_the_levels_used_here_have_the_widths_written_out(nested: NestedModel) -> None:
    rows = {level: len(state_dict(nested, level)["first.bias"]) for level in nested.levels}
    assert rows == {"tiny": 4, "small": 8, "medium": 12, "full": 16}
