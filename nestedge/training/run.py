"""One call of the training loop, from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nestedge.errors import NestedgeError, UsageError
from nestedge.model import NestedModel
from nestedge.training.batches import Batches, read_batches, set_epoch
from nestedge.training.checkpoints import BEST, LAST, Checkpoints, Stateful, load_parts
from nestedge.training.fake_quantization import FakeQuantization
from nestedge.training.objectives import Objective, Step
from nestedge.training.precision import MixedPrecision
from nestedge.training.processes import average, average_gradients, broadcast, processes
from nestedge.training.progress import Progress
from nestedge.training.randomness import (
    forked_generators,
    generator_states,
    set_generator_states,
)
from nestedge.training.synchronization import synchronized

Evaluate = Callable[[NestedModel], Mapping[str, float]]
"""The accuracy of every level of interest, by its name."""


@dataclass
class Place:
    """How far a training is, as a checkpoint keeps it.

    Attributes:
        epoch: from 0.
        index: steps of the epoch that are done.
        number: steps that are done.
        total: sum of the losses of the epoch's steps.
        steps: of every epoch; None while that is not known.
        accuracies: what was evaluated last.
        best: the best mean of the levels' accuracies so far; minus infinity before the first.
    """

    epoch: int = 0
    index: int = 0
    number: int = 0
    total: float = 0.0
    steps: int | None = None
    accuracies: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf


@dataclass
class Run:
    """One call of `train`, and how far it is.

    Attributes:
        mixed: the precision of the forward passes.
        state: what else a checkpoint keeps.
        done: steps of this call.
        rate: the learning rate of the last step.
        epoch_states: of the generators, when the epoch began.
        resumed_states: of the generators, at the step that this call went on from.

    The others are as `train` says.
    """

    nested: NestedModel
    batches: Batches
    epochs: int
    objective: Objective
    optimizer: Optimizer
    schedule: LRScheduler | None
    seed: int
    mixed: MixedPrecision
    quantization: FakeQuantization | None
    sync_batch_norm: bool
    after_epoch: Callable[[int], None] | None
    evaluate: Evaluate | None
    checkpoints: Checkpoints | None
    state: Mapping[str, Stateful]
    clock: Callable[[], float]
    started: float
    done: int = 0
    rate: float = 0.0
    place: Place = field(default_factory=Place)
    epoch_states: list[torch.Tensor] = field(default_factory=list)
    resumed_states: list[torch.Tensor] = field(default_factory=list)

    def reports(self) -> Iterator[Progress]:
        """Train, with a report after every step and after every evaluation."""
        self._resume()
        broadcast(self.nested.state_dict().values())
        if isinstance(self.batches, Sized):
            self.place.steps = len(self.batches)
        while self.place.epoch < self.epochs:
            yield from self._epoch()

    def _epoch(self) -> Iterator[Progress]:
        # Each epoch anew, because `evaluate` may leave the network in evaluation mode.
        self.nested.train()
        place = self.place
        set_epoch(self.batches, place.epoch)
        self.epoch_states = generator_states()
        for inputs, target in self._open_batches():
            self._step(inputs, target)
            yield self._report()
            if self.checkpoints is not None and self.checkpoints.is_due(place.index):
                self._save()
        place.steps = place.index
        average([*self.nested.buffers(), *self._extremes()])
        if self.after_epoch is not None:
            self.after_epoch(place.epoch)
        _check_statistics(self.nested, place.epoch + 1)
        if self.evaluate is not None:
            # Forked, so that looking at the network does not change what it learns.
            with forked_generators():
                place.accuracies = dict(self.evaluate(self.nested))
            yield self._report()
        place.epoch, place.index, place.total = place.epoch + 1, 0, 0.0
        self.epoch_states = generator_states()
        self._save()

    def _open_batches(self) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch that are still to be trained on."""
        skipped = self.place.index
        for index, batch in enumerate(read_batches(self.batches)):
            if index >= skipped:
                yield batch
            elif index == skipped - 1:
                # Up to here only batches were drawn, not what the network draws.
                set_generator_states(self.resumed_states)

    def _step(self, inputs: Any, target: Any) -> None:
        place = self.place
        step = Step(
            place.epoch, self.epochs, place.index, place.steps, place.number, seed=self.seed
        )
        self.optimizer.zero_grad()
        total = 0.0
        for loss in self.mixed.losses(self._losses(inputs, target, step)):
            if loss.dim():
                raise UsageError(
                    f"objective: expected scalar losses, found shape {tuple(loss.shape)}"
                )
            self.mixed.backward(loss)
            total += loss.item()
        total = average_gradients(self.nested.parameters(), total)
        if not math.isfinite(total):
            raise NestedgeError(
                f"epoch {place.epoch + 1}, step {place.index + 1}: the loss is {total}; the "
                "weights are those of the step before: lower the learning rate, or look for such "
                "numbers in the inputs"
            )
        self.rate = float(self.optimizer.param_groups[0]["lr"])
        if self.mixed.step(self.optimizer) and self.schedule is not None:
            self.schedule.step()
        place.index += 1
        place.number += 1
        place.total += total
        self.done += 1

    def _losses(self, inputs: Any, target: Any, step: Step) -> Iterator[torch.Tensor]:
        losses = self.objective(self.nested, inputs, target, step)
        if self.quantization is not None:
            losses = self.quantization.losses(losses, epoch=step.epoch)
        # Batch norms of one process alone are faster as they are.
        return synchronized(losses) if self.sync_batch_norm and processes() > 1 else losses

    def _extremes(self) -> list[torch.Tensor]:
        return [] if self.quantization is None else self.quantization.extremes()

    def _report(self) -> Progress:
        place, seconds = self.place, self.clock() - self.started
        left = None
        if place.steps is not None and self.done:
            left = seconds / self.done * max(0, place.steps * self.epochs - place.number)
        return Progress(
            epoch=place.epoch + 1,
            epochs=self.epochs,
            step=place.index,
            steps=place.steps,
            loss=place.total / place.index,
            seconds=seconds,
            seconds_left=left,
            accuracies=dict(place.accuracies),
            learning_rate=self.rate,
        )

    def _parts(self) -> dict[str, Stateful]:
        """Whatever has state, by its name in a checkpoint."""
        own: dict[str, Stateful] = {
            "network": self.nested,
            "optimizer": self.optimizer,
            "precision": self.mixed,
        }
        if self.schedule is not None:
            own["schedule"] = self.schedule
        if self.quantization is not None:
            own["quantization"] = self.quantization
        if taken := sorted(own.keys() & self.state.keys()):
            raise UsageError(f"state: {taken[0]!r} is kept already; choose another name")
        # A method's state first: it may bring levels, whose tensors the network then takes.
        return {**self.state, **own}

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        place, mean = self.place, _mean(self.place.accuracies)
        # Only the end of an epoch has accuracies of these weights.
        is_best = place.index == 0 and mean > place.best
        place.best = mean if is_best else place.best
        state = {
            "place": asdict(place),
            "seed": self.seed,
            "generators": {"epoch": self.epoch_states, "step": generator_states()},
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
        }
        if is_best:
            self.checkpoints.write(state, name=BEST)
        self.checkpoints.write(state)

    def _resume(self) -> None:
        """Take the state of the last checkpoint, if there is one."""
        parts = self._parts()
        state = self.checkpoints.read() if self.checkpoints is not None else None
        if state is None or self.checkpoints is None:
            return
        where = self.checkpoints.folder / LAST
        if state["seed"] != self.seed:
            raise UsageError(
                f"{where}: is of a training with seed {state['seed']}, this one has {self.seed}"
            )
        load_parts(parts, state["parts"], where=where)
        self.place = Place(**state["place"])
        self.resumed_states = state["generators"]["step"]
        set_generator_states(state["generators"]["epoch"])


def _mean(accuracies: Mapping[str, float]) -> float:
    return sum(accuracies.values()) / len(accuracies) if accuracies else -math.inf


def _check_statistics(nested: NestedModel, epoch: int) -> None:
    for name, buffer in nested.named_buffers():
        if not buffer.isfinite().all():
            # torch.nn.BatchNorm refuses such a batch; the operator that it calls does not.
            raise NestedgeError(
                f"epoch {epoch}: {name!r} became infinite or not a number; a batch norm needs "
                "several values per channel in every batch: drop a last batch of one image"
            )
