"""How far training is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far training is, after a step.

    Attributes:
        epoch: from 1.
        epochs: in all.
        step: of this epoch, from 1.
        steps: of every epoch; None in a first epoch whose length is not known.
        loss: mean of the epoch's steps so far; of several processes, that of all.
        seconds: since training began, or went on from a checkpoint.
        seconds_left: at the pace so far; None while the length of an epoch is not known.
        accuracies: what `evaluate` gave last, by level.
        learning_rate: of the last step, of the optimizer's first group.
    """

    epoch: int
    epochs: int
    step: int
    steps: int | None
    loss: float
    seconds: float
    seconds_left: float | None
    accuracies: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
