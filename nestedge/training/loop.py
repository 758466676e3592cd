"""The loop that trains a nested network, whatever the method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nestedge.errors import NestedgeError, UsageError
from nestedge.model import NestedModel
from nestedge.training.batches import Batches, read_batches
from nestedge.training.objectives import Objective


@dataclass(frozen=True)
class Progress:
    """How far training is, after a step.

    Attributes:
        epoch: from 1.
        epochs: in all.
        step: of this epoch, from 1.
        steps: of every epoch; None in a first epoch whose length is not known.
        loss: mean of the epoch's steps so far.
        seconds: since training began.
        seconds_left: at the pace so far; None while the length of an epoch is not known.
        accuracies: what `evaluate` gave last, by level.
    """

    epoch: int
    epochs: int
    step: int
    steps: int | None
    loss: float
    seconds: float
    seconds_left: float | None
    accuracies: Mapping[str, float] = field(default_factory=dict)


Evaluate = Callable[[NestedModel], Mapping[str, float]]
"""The accuracy of every level of interest, by its name."""


def train(
    nested: NestedModel,
    batches: Batches,
    *,
    epochs: int,
    objective: Objective,
    optimizer: Optimizer,
    schedule: LRScheduler | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    evaluate: Evaluate | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Progress, ...]:
    """Train a nested network.

    Two runs from the same weights, with the same seed, on the same machine give the same weights.

    Args:
        nested: is trained in training mode; its mode is as before afterwards.
        batches: the training data, gone through once per epoch. A DataLoader without a generator
            of its own shuffles as the seed says.
        epochs: how many.
        objective: what to minimise: `joint_objective`, `sandwich_objective` or one's own.
        optimizer: of `nested.parameters()`, made after the last level was added.
        schedule: is stepped after every step of the optimizer, not after every epoch.
        seed: of dropout and shuffling.
        progress: is called after every step, and once more after an epoch that was evaluated.
        evaluate: is called after every epoch.
        clock: seconds, from any start.

    Returns:
        The last report of every epoch.

    Raises:
        UsageError: there is no batch or epoch, or the optimizer is another network's.
        NestedgeError: the loss or the batch-norm statistics became infinite or not a number.
    """
    if epochs < 1:
        raise UsageError(f"epochs: expected 1 or more, found {epochs}")
    _check_optimizer(nested, optimizer)
    run = _Run(nested, batches, epochs, objective, optimizer, schedule, evaluate, clock, clock())
    was_training = nested.training
    last: dict[int, Progress] = {}
    try:
        with _forked_generators():
            torch.manual_seed(seed)
            for report in run.reports():
                last[report.epoch] = report
                if progress is not None:
                    progress(report)
    finally:
        nested.train(was_training)
    return tuple(last.values())


@dataclass
class _Run:
    """One call of `train`, and how far it is."""

    nested: NestedModel
    batches: Batches
    epochs: int
    objective: Objective
    optimizer: Optimizer
    schedule: LRScheduler | None
    evaluate: Evaluate | None
    clock: Callable[[], float]
    started: float
    done: int = 0
    steps: int | None = None
    accuracies: Mapping[str, float] = field(default_factory=dict)

    def reports(self) -> Iterator[Progress]:
        """Train, with a report after every step and after every evaluation."""
        self.steps = len(self.batches) if isinstance(self.batches, Sized) else None
        for epoch in range(1, self.epochs + 1):
            step, total = 0, 0.0
            # Each epoch anew, because `evaluate` may leave the network in evaluation mode.
            self.nested.train()
            for inputs, target in read_batches(self.batches):
                step += 1
                total += self._step(inputs, target, where=f"epoch {epoch}, step {step}")
                yield self._report(epoch, step, total / step)
            self.steps = step
            _check_statistics(self.nested, epoch)
            if self.evaluate is not None:
                # Forked, so that looking at the network does not change what it learns.
                with _forked_generators():
                    self.accuracies = dict(self.evaluate(self.nested))
                yield self._report(epoch, step, total / step)

    def _step(self, inputs: Any, target: Any, *, where: str) -> float:
        self.optimizer.zero_grad()
        total = 0.0
        for loss in self.objective(self.nested, inputs, target):
            if loss.dim():
                raise UsageError(
                    f"objective: expected scalar losses, found shape {tuple(loss.shape)}"
                )
            torch.autograd.backward(loss)
            total += loss.item()
        if not math.isfinite(total):
            raise NestedgeError(
                f"{where}: the loss is {total}; the weights are those of the step before: "
                "lower the learning rate, or look for such numbers in the inputs"
            )
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.done += 1
        return total

    def _report(self, epoch: int, step: int, loss: float) -> Progress:
        seconds = self.clock() - self.started
        left = None
        if self.steps is not None:
            left = seconds / self.done * max(0, self.steps * self.epochs - self.done)
        return Progress(
            epoch=epoch,
            epochs=self.epochs,
            step=step,
            steps=self.steps,
            loss=loss,
            seconds=seconds,
            seconds_left=left,
            accuracies=self.accuracies,
        )


def _forked_generators() -> AbstractContextManager[None]:
    """A block after which torch's global generators are as before.

    Dropout, and a DataLoader that shuffles, draw from the global generators and take no other; so
    those must be seeded, but only for as long as training lasts.
    """
    # Asking a CUDA that nobody has used yet for its generators would start it up.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(range(torch.cuda.device_count()) if used else [])


def _check_optimizer(nested: NestedModel, optimizer: Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held.isdisjoint(map(id, nested.parameters())):
        raise UsageError(
            "optimizer: expected parameters of the nested network, found only others; `nest` "
            "copies the weights, so make the optimizer from nested.parameters()"
        )


def _check_statistics(nested: NestedModel, epoch: int) -> None:
    for name, buffer in nested.named_buffers():
        if not buffer.isfinite().all():
            # torch.nn.BatchNorm refuses such a batch; the operator that it calls does not.
            raise NestedgeError(
                f"epoch {epoch}: {name!r} became infinite or not a number; a batch norm needs "
                "several values per channel in every batch: drop a last batch of one image"
            )
