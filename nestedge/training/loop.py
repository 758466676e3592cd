"""The loop that trains a nested network, whatever the method."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.batches import Batches
from nestedge.training.checkpoints import Checkpoints, Stateful
from nestedge.training.fake_quantization import FakeQuantization
from nestedge.training.objectives import Objective
from nestedge.training.precision import MixedPrecision, Precision
from nestedge.training.progress import Progress
from nestedge.training.randomness import forked_generators
from nestedge.training.run import Evaluate, Run


def train(
    nested: NestedModel,
    batches: Batches,
    *,
    epochs: int,
    objective: Objective,
    optimizer: Optimizer,
    schedule: LRScheduler | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    quantization: FakeQuantization | None = None,
    sync_batch_norm: bool = False,
    after_epoch: Callable[[int], None] | None = None,
    evaluate: Evaluate | None = None,
    checkpoints: Checkpoints | None = None,
    state: Mapping[str, Stateful] | None = None,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Progress, ...]:
    """Train a nested network.

    Two runs from the same weights, with the same seed, on the same machine give the same weights;
    so does one that was interrupted and called again with the same checkpoints.

    Under torch.distributed every process calls this with batches of its own share (a loader with
    a DistributedSampler, whose epoch is set here). They begin with the weights of the first one,
    and average their gradients at every step and their batch-norm statistics after every epoch.

    Args:
        nested: is trained in training mode; its mode is as before afterwards.
        batches: the training data, gone through once per epoch. A DataLoader without a generator
            of its own shuffles as the seed says. To resume within an epoch its first batches are
            drawn once more.
        epochs: how many.
        objective: what to minimise: one of the methods', or one's own.
        optimizer: of `nested.parameters()`, made after the last level was added.
        schedule: is stepped after every step of the optimizer, not after every epoch.
        seed: of dropout and shuffling, and of what the objective draws.
        precision: of the forward passes; weights and gradients stay as they are.
        quantization: rounds what the levels of the network compute with, as int8 does: training
            that is aware of it. Its ranges are a part of checkpoints.
        sync_batch_norm: whether batch norms see the images of all processes, as those of one
            process with the whole batch would, at the cost of two exchanges each.
        after_epoch: is called with the number of an epoch, from 0, after its last step and before
            it is evaluated: a method's pruning, or its sorting of channels.
        evaluate: is called after every epoch.
        checkpoints: where to keep the state, and to go on from. Weights, optimizer, schedule,
            generators and `state` are kept.
        state: what else has state that changes while training, by name: a method's masks.
        progress: is called after every step, and once more after an epoch that was evaluated.
        clock: seconds, from any start.

    Returns:
        The last report of every epoch that this call has trained.

    Raises:
        UsageError: there is no batch or epoch, the optimizer or the rounding is another network's,
            rounding would begin after the last epoch, or the checkpoint is another training's.
        FormatError: the checkpoint is damaged.
        NestedgeError: the loss or the batch-norm statistics became infinite or not a number.
    """
    if epochs < 1:
        raise UsageError(f"epochs: expected 1 or more, found {epochs}")
    _check_optimizer(nested, optimizer)
    if quantization is not None:
        _check_quantization(nested, quantization, epochs)
    run = Run(
        nested=nested,
        batches=batches,
        epochs=epochs,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        seed=seed,
        mixed=MixedPrecision(precision, next(nested.parameters()).device.type),
        quantization=quantization,
        sync_batch_norm=sync_batch_norm,
        after_epoch=after_epoch,
        evaluate=evaluate,
        checkpoints=checkpoints,
        state=dict(state or {}),
        clock=clock,
        started=clock(),
    )
    was_training = nested.training
    last: dict[int, Progress] = {}
    try:
        with forked_generators():
            torch.manual_seed(seed)
            for report in run.reports():
                last[report.epoch] = report
                if progress is not None:
                    progress(report)
    finally:
        nested.train(was_training)
    return tuple(last.values())


def _check_optimizer(nested: NestedModel, optimizer: Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held.isdisjoint(map(id, nested.parameters())):
        raise UsageError(
            "optimizer: expected parameters of the nested network, found only others; `nest` "
            "copies the weights, so make the optimizer from nested.parameters()"
        )


def _check_quantization(nested: NestedModel, quantization: FakeQuantization, epochs: int) -> None:
    if quantization.nested is not nested:
        raise UsageError("quantization: is of another network; make it of the one that is trained")
    if quantization.from_epoch >= epochs:
        raise UsageError(
            f"quantization: expected to begin before the end of {epochs} epochs, found epoch "
            f"{quantization.from_epoch}, counted from 0"
        )
