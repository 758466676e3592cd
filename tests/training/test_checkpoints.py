from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.nested import NestedModel
from nestedge.training import Checkpoints, Objective, Progress, Step, joint_objective, train
from tests.networks import cross_entropy, nested_perceptron, vectors

EPOCHS, STEPS = 3, 4


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    return nested_perceptron().train()


class _EndOfProcessError(Exception):
    """Stands for kill -9."""


class _Counter:
    """Something else that has state."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


def _objective(counter: _Counter, drawn: list[float]) -> Objective:
    joint = joint_objective(("tiny", "full"), cross_entropy)

    def objective(
        nested: NestedModel, inputs: Any, target: Any, step: Step
    ) -> Iterator[torch.Tensor]:
        counter.count += 1
        # From here on every step depends on all before, by the counter, and on its own draws.
        drawn.append(step.generator().random() + counter.count)
        for loss in joint(nested, inputs, target, step):
            yield loss * drawn[-1]

    return objective


def _train(
    nested: NestedModel,
    folder: Path | None,
    *,
    stop_at: tuple[int, int] | None = None,
    every: int | None = None,
    **options: Any,
) -> tuple[dict[str, torch.Tensor], list[Progress], list[float]]:
    """The weights, reports and draws of a training with dropout and shuffled data, made anew."""
    nested = copy.deepcopy(nested)
    optimizer = SGD(nested.parameters(), 0.05, momentum=0.9)
    counter, drawn, reports = _Counter(), list[float](), list[Progress]()

    def progress(report: Progress) -> None:
        reports.append(report)
        if stop_at == (report.epoch, report.step):
            raise _EndOfProcessError

    settings: dict[str, Any] = {
        "epochs": EPOCHS,
        "objective": _objective(counter, drawn),
        "optimizer": optimizer,
        "schedule": CosineAnnealingLR(optimizer, EPOCHS * STEPS),
        "checkpoints": Checkpoints(folder, every=every) if folder else None,
        "state": {"counter": counter},
        "progress": progress,
        "seed": 3,
    }
    loader = DataLoader(TensorDataset(*vectors(32)), batch_size=8, shuffle=True)
    try:
        train(nested, loader, **{**settings, **options})
    except _EndOfProcessError:
        assert stop_at is not None
    return nested.state_dict(), reports, drawn


PLACES = list(itertools.product(range(1, EPOCHS + 1), range(1, STEPS + 1)))


@pytest.mark.parametrize("every", [None, 1, 3])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_training_that_was_interrupted_ends_with_the_same_weights_bit_for_bit(
    trainable: NestedModel, tmp_path: Path, place: tuple[int, int], every: int | None
) -> None:
    whole, reports, drawn = _train(trainable, None)
    _train(trainable, tmp_path, stop_at=place, every=every)
    resumed, again, drawn_again = _train(trainable, tmp_path, every=every)
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    assert drawn[len(drawn) - len(drawn_again) :] == drawn_again
    assert [r.loss for r in again] == [r.loss for r in reports[len(reports) - len(again) :]]
    # Without `every` an epoch is begun anew; with it at most so many steps are.
    saved = (place[0] - 1) * STEPS
    if every is not None:
        saved += (place[1] - 1) // every * every
    assert len(again) == EPOCHS * STEPS - saved


def test_a_training_that_has_ended_is_not_trained_again(
    trainable: NestedModel, tmp_path: Path
) -> None:
    first, *_ = _train(trainable, tmp_path)
    again, reports, _ = _train(trainable, tmp_path)
    assert reports == []
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_the_best_checkpoint_is_that_of_the_best_epoch(
    trainable: NestedModel, tmp_path: Path
) -> None:
    accuracies = iter([40.0, 70.0, 50.0])
    _train(trainable, tmp_path, evaluate=lambda n: {"tiny": next(accuracies), "full": 80.0})
    best, last = (Checkpoints(tmp_path).read(name) for name in ("best.pt", "last.pt"))
    assert best is not None
    assert last is not None
    assert best["place"]["accuracies"]["tiny"] == 70.0
    assert last["place"]["accuracies"]["tiny"] == 50.0
    assert (best["place"]["epoch"], last["place"]["epoch"]) == (2, 3)


def test_a_loss_that_is_not_a_number_leaves_the_checkpoint_as_it_was(
    trainable: NestedModel, tmp_path: Path
) -> None:
    _train(trainable, tmp_path, stop_at=(2, 2), every=1)
    before = (tmp_path / "last.pt").read_bytes()

    def objective(nested: NestedModel, inputs: Any, *_: Any) -> Iterator[torch.Tensor]:
        yield nested(inputs)["logits"].sum() * float("nan")

    with pytest.raises(NestedgeError, match="epoch 2, step 2: the loss is nan"):
        _train(trainable, tmp_path, objective=objective, every=1)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_nothing_but_whole_checkpoints_is_in_the_folder(
    trainable: NestedModel, tmp_path: Path
) -> None:
    _train(trainable, tmp_path, every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    path.write_bytes(b"no zip at all")


def _execute(path: Path) -> None:
    torch.save({"format": 1, "call": print}, path)


def _foreign(path: Path) -> None:
    torch.save({"format": 7}, path)


def _list(path: Path) -> None:
    torch.save([1, 2], path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncate, "not a whole checkpoint .*remove it to begin anew"),
    "no zip": (_flip, "not a whole checkpoint"),
    "code": (_execute, "not a whole checkpoint"),
    "newer": (_foreign, "expected a checkpoint of format 1, found 7"),
    "list": (_list, "expected a checkpoint of format 1, found list"),
}


@pytest.mark.parametrize(("damage", "message"), list(DAMAGES.values()), ids=list(DAMAGES))
def test_a_damaged_checkpoint_is_refused_and_stays(
    trainable: NestedModel, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    _train(trainable, tmp_path, stop_at=(1, 2), every=1)
    damage(tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(FormatError, match=message):
        _train(trainable, tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == before


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 4}, "is of a training with seed 3, this one has 4"),
    "parts": ({"state": {}}, r"is of a training with .*'counter'.*, this one has"),
    "no schedule": ({"schedule": None}, "is of a training with"),
}


@pytest.mark.parametrize(("options", "message"), list(OTHERS.values()), ids=list(OTHERS))
def test_a_checkpoint_of_another_training_is_refused(
    trainable: NestedModel, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    _train(trainable, tmp_path, stop_at=(1, 2), every=1)
    with pytest.raises(UsageError, match=message):
        _train(trainable, tmp_path, **options)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    nested = nested_perceptron()
    _train(nested, tmp_path, stop_at=(1, 2), every=1)
    nested.add_level("other", 0.5)
    nested.remove_level("tiny")
    other = nested_perceptron()
    optimizer = Adam(other.parameters())
    with pytest.raises(UsageError, match=r"of another training: (network|optimizer): "):
        train(
            other,
            [vectors(8)],
            epochs=1,
            objective=joint_objective(["tiny"], cross_entropy),
            optimizer=optimizer,
            schedule=CosineAnnealingLR(optimizer, 1),
            state={"counter": _Counter()},
            checkpoints=Checkpoints(tmp_path),
            seed=3,
        )


def test_a_checkpoint_every_none_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected every 1 step or more, found 0"):
        Checkpoints(tmp_path, every=0)


def test_a_name_that_is_kept_already_is_refused(trainable: NestedModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'optimizer' is kept already"):
        _train(trainable, tmp_path, state={"optimizer": _Counter()})
