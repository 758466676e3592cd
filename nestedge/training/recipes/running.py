"""A recipe, from its data to a .nest."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.accuracy import accuracy
from nestedge.training.checkpoints import Checkpoints
from nestedge.training.datasets import DataSet, spread
from nestedge.training.fake_quantization import FakeQuantization
from nestedge.training.image_batches import ImageBatches, plain_batches, training_batches
from nestedge.training.loop import train
from nestedge.training.processes import is_first, wait_for_all
from nestedge.training.progress import Progress
from nestedge.training.recalibration import recalibrate
from nestedge.training.recipes.frame import Method, Setup, nothing
from nestedge.training.recipes.methods import cross_entropy
from nestedge.training.recipes.network import nested_for, read_model
from nestedge.training.recipes.recipe import Recipe

RECALIBRATION_IMAGES = 2000
"""Training images from which batch-norm statistics are measured, as once-for-all does."""

_TEST_BATCH = 256
_WHOLE = "network"


@dataclass(frozen=True)
class Trained:
    """What came of a recipe.

    Attributes:
        nested: the network, on the CPU and in evaluation mode.
        accuracies: on the test images, in percent, of every level that was saved.
        reports: the last report of every epoch that this call has trained.
        skipped: names of broken images that were left out.
    """

    nested: NestedModel
    accuracies: Mapping[str, float]
    reports: tuple[Progress, ...]
    skipped: tuple[str, ...]


def unheard(_: str) -> None:
    """Announces nothing."""


def run_recipe(
    recipe: Recipe,
    output: Path,
    *,
    device: str = "cpu",
    checkpoints: Checkpoints | None = None,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] = unheard,
) -> Trained:
    """Nest, train, recalibrate, evaluate and save.

    The same recipe on the same machine gives the same bytes; so does one that was interrupted and
    run again with the same checkpoints. Under torch.distributed every process calls this; only the
    first one writes.

    Args:
        recipe: from `read_recipe`, or `recipe_from` in Python.
        output: the .nest, written when all else is done; until then what was there stays.
        device: to train on, as torch calls it.
        checkpoints: where to keep the state, and to go on from.
        progress: as for `nestedge.training.train`.
        announce: is told in one line what is being done, and what was left out.

    Raises:
        UsageError: something in the recipe does not fit the rest, or the checkpoints are those of
            another recipe.
        FormatError: a file is damaged.
        MissingDependencyError: a package that reads the data is not installed.
        NestedgeError: training failed.
        OSError: a file cannot be read or written.
    """
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}")
    where = torch.device(device)
    model = read_model(recipe, announce)
    data = recipe.data.load()
    if data.skipped:
        announce(f"left out {len(data.skipped)} broken images: {', '.join(data.skipped)}")
    nested = nested_for(recipe, model, data).to(where)
    test = _plain(recipe, nested, data, where, train=False)
    batches = _batches(recipe, nested, data, where)
    method = _prepared(recipe, nested, len(batches))
    quantization = _quantization(recipe, nested)
    counts = f"{len(data.train.classes)} images to train with, {len(data.test.classes)} to test"
    announce(f"{counts}, {len(data.labels)} classes; levels {', '.join(nested.levels) or 'none'}")
    reports = train(
        nested,
        batches,
        epochs=recipe.training.epochs,
        objective=method.objective,
        optimizer=method.optimizer,
        schedule=_schedule(recipe, method.optimizer, len(batches)),
        seed=recipe.training.seed,
        precision=recipe.training.precision,
        quantization=quantization,
        sync_batch_norm=recipe.training.sync_batch_norm,
        after_epoch=method.after_epoch,
        evaluate=lambda trained: _accuracies(trained, test),
        checkpoints=checkpoints,
        state={**method.state, "recipe": _Said(recipe, data)},
        progress=progress,
    )
    # The statistics of a level whose numbers are rounded are those of rounded numbers.
    with nullcontext() if quantization is None else quantization.applied():
        _finish(nested, method, _plain(recipe, nested, data, where, train=True))
    found = _accuracies(nested, test)
    nested.cpu().eval()
    if is_first():
        nested.save(output)
    wait_for_all()
    return Trained(nested, found, reports, data.skipped)


class _Said:
    """What a checkpoint knows its recipe by."""

    def __init__(self, recipe: Recipe, data: DataSet) -> None:
        images = {"train": len(data.train.classes), "test": len(data.test.classes)}
        said: dict[str, Any] = json.loads(recipe.said)
        self._said = {**said, "images": images, "labels": list(data.labels)}

    def state_dict(self) -> dict[str, Any]:
        return {"said": json.dumps(self._said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        before = json.loads(state["said"])
        if place := _difference(before, self._said):
            raise ValueError(place)


def _difference(before: object, now: object, path: str = "") -> str:
    """The first place where two documents differ, and how; empty where they are the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *before]:
            inner = _difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
            if inner:
                return inner
        return ""
    return "" if before == now else f"{path} was {json.dumps(before)} and is {json.dumps(now)}"


def _batches(
    recipe: Recipe, nested: NestedModel, data: DataSet, device: torch.device
) -> ImageBatches:
    steps = nested.card.preprocessing
    assert steps is not None, "it was nested for the data"
    return training_batches(
        data.train,
        steps,
        batch=recipe.data.batch,
        augmentation=recipe.data.augmentation,
        workers=recipe.data.workers,
        device=device,
        seed=recipe.training.seed,
    )


def _plain(
    recipe: Recipe, nested: NestedModel, data: DataSet, device: torch.device, *, train: bool
) -> ImageBatches:
    """The test images; or of the training images those from which statistics are measured."""
    steps = nested.card.preprocessing
    assert steps is not None, "it was nested for the data"
    images, batch = data.test, _TEST_BATCH
    if train:
        batch = recipe.data.batch
        # Whole batches only: a batch norm may see no variance in a last one of one image.
        count = max(batch, RECALIBRATION_IMAGES // batch * batch)
        images = data.train.subset(spread(len(data.train.classes) // batch * batch, count))
    return plain_batches(images, steps, batch=batch, device=device, workers=recipe.data.workers)


def _prepared(recipe: Recipe, nested: NestedModel, steps: int) -> Method:
    asked = recipe.training

    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return recipe.optimizer.make(parameters)

    method = recipe.method(
        Setup(
            nested=nested,
            loss=cross_entropy(asked.label_smoothing),
            epochs=asked.epochs,
            steps=steps,
            seed=asked.seed,
            folder=recipe.folder,
            rate=recipe.schedule.rate(recipe.optimizer.rate, epochs=asked.epochs, steps=steps),
            optimizer=optimizer,
        )
    )
    if not nested.levels and method.finish is nothing:
        raise UsageError("levels: expected at least one level, found none")
    return method


def _quantization(recipe: Recipe, nested: NestedModel) -> FakeQuantization | None:
    asked = recipe.quantization
    if asked is None:
        return None
    return FakeQuantization(nested, from_epoch=asked.from_epoch, activations=asked.activations)


def _schedule(recipe: Recipe, optimizer: Optimizer, steps: int) -> LambdaLR:
    epochs, base = recipe.training.epochs, recipe.optimizer.rate
    rate = recipe.schedule.rate(base, epochs=epochs, steps=steps)
    # Shares of the rate, so that groups of another rate change alike.
    return LambdaLR(optimizer, lambda step: rate(step / (epochs * steps)) / base)


def _finish(nested: NestedModel, method: Method, images: ImageBatches) -> None:
    """What is left to do when all is trained: the method's end, and statistics of levels."""
    trained = set(nested.levels)
    method.finish(nested)
    off = (name for name in nested.levels if _is_off(nested, name, trained))
    if chosen := [name for name in off if name not in method.settled]:
        recalibrate(nested, images, levels=chosen)


def _is_off(nested: NestedModel, level: str, trained: Container[str]) -> bool:
    """Whether a level's batch-norm statistics are not those that its own training gathered.

    Levels that share all other tensors of batch norms were perhaps drawn rarely, or not for long.
    """
    own = nested.own_tensors(level).values()
    if level not in trained:
        return True
    if not own:
        return nested.card.batch_norm == "shared"
    return not any(isinstance(tensor, nn.Parameter) for tensor in own)


def _accuracies(nested: NestedModel, test: ImageBatches) -> dict[str, float]:
    """Of every level; before a method has found the first one, of the network."""
    if not nested.levels:
        return {_WHOLE: accuracy(nested, test)}
    return {level: accuracy(nested, test, level) for level in nested.levels}
