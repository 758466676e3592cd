from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nestedge.errors import MissingDependencyError
from nestedge.training import Progress
from nestedge.training.tensorboard import TensorBoard

Scalars = dict[tuple[str, int], float]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a writer that stands for tensorboard's is given; the real one is not needed."""
    found: dict[str, Any] = {"scalars": {}, "closed": 0}

    class Writer:
        def __init__(self, folder: str, *, purge_step: int) -> None:
            found.update(folder=folder, purge_step=purge_step)

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            assert (tag, step) not in found["scalars"]
            found["scalars"][tag, step] = value

        def close(self) -> None:
            found["closed"] += 1

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return found


def _report(epoch: int, step: int, **accuracies: float) -> Progress:
    return Progress(
        epoch=epoch,
        epochs=3,
        step=step,
        steps=2,
        loss=epoch + step / 10,
        seconds=1.0,
        seconds_left=None,
        accuracies=accuracies,
        learning_rate=0.1 * epoch,
    )


def test_losses_rates_and_accuracies_are_written_by_their_steps(
    written: dict[str, Any], tmp_path: Path
) -> None:
    with TensorBoard(tmp_path) as board:
        board(_report(1, 1))
        board(_report(1, 2))
        board(_report(1, 2, small=50.0, full=60.0))
        board(_report(2, 1, small=50.0, full=60.0))
    assert written["scalars"] == {
        ("loss", 1): 1.1,
        ("learning rate", 1): 0.1,
        ("loss", 2): 1.2,
        ("learning rate", 2): 0.1,
        ("accuracy/small", 2): 50.0,
        ("accuracy/full", 2): 60.0,
        ("loss", 3): 2.1,
        ("learning rate", 3): 0.2,
    }
    assert (written["folder"], written["purge_step"], written["closed"]) == (str(tmp_path), 1, 1)


def test_steps_that_are_trained_once_more_replace_those_written_before(
    written: dict[str, Any], tmp_path: Path
) -> None:
    with TensorBoard(tmp_path) as board:
        board(_report(2, 2))
    assert list(written["scalars"]) == [("loss", 4), ("learning rate", 4)]
    assert written["purge_step"] == 4


def test_without_tensorboard_the_line_to_type_is_told_before_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nestedge\[tensorboard\]'"):
        TensorBoard(tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_training_without_a_report_writes_nothing(
    written: dict[str, Any], tmp_path: Path
) -> None:
    with TensorBoard(tmp_path):
        pass
    assert written == {"scalars": {}, "closed": 0}
