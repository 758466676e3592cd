"""The nested network of a recipe, before it is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nestedge.card import Card
from nestedge.errors import UsageError
from nestedge.importing import load_plain, read_checkpoint
from nestedge.importing.files import build_model
from nestedge.model import NestedModel
from nestedge.nested import nest
from nestedge.nestfile import load
from nestedge.preprocessing import Preprocessing
from nestedge.training.datasets import DataSet, channel_statistics, spread
from nestedge.training.image_batches import as_inputs
from nestedge.training.randomness import forked_generators
from nestedge.training.recipes.recipe import Recipe


def read_model(recipe: Recipe, announce: Callable[[str], None]) -> nn.Module:
    """The network that a recipe begins with: a plain module, or one that is nested already.

    Args:
        recipe: names it.
        announce: is told whose code is run.

    Raises:
        UsageError: there is no such function or file, or the weights do not fit.
        FormatError: a file is damaged.
    """
    asked = recipe.model
    if asked.nest is not None:
        return load(asked.nest)
    assert asked.factory is not None, "a recipe has either"
    # The first weights are drawn from the global generator, which others may be using.
    with forked_generators():
        torch.manual_seed(recipe.training.seed)
        if isinstance(asked.factory, str):
            announce(f"running the code of {asked.factory}")
            with _importing_from(recipe.folder):
                model = build_model(asked.factory)
        else:
            model = asked.factory()
    if asked.weights is not None:
        load_plain(model, read_checkpoint(asked.weights))
    return model


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    path = str(folder.resolve())
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)


def nested_for(recipe: Recipe, model: nn.Module, data: DataSet) -> NestedModel:
    """The network with the recipe's levels, and with all that travels with it.

    Raises:
        UsageError: the network does not fit the data or the levels.
    """
    steps = _preprocessing(recipe, model, data)
    example = as_inputs(data.train.pixels([0]), steps)
    _check_input(recipe, tuple(example.shape))
    card = Card(divisor=recipe.card.divisor or 8, batch_norm=recipe.card.batch_norm or "switchable")
    if isinstance(model, NestedModel):
        nested, card = model, model.card
        card = replace(
            card,
            divisor=recipe.card.divisor or card.divisor,
            batch_norm=recipe.card.batch_norm or card.batch_norm,
        )
        nested.card = card
        for name, level in recipe.levels.items():
            nested.add_level(name, level)
    else:
        nested = nest(model, example, recipe.levels, card=card)
    if len(nested.examples) != 1:
        raise UsageError(
            f"model: expected a network of one input, the image, found {list(nested.examples)}"
        )
    (name,) = nested.examples
    labels = _labels(recipe, nested, data)
    nested.card = replace(card, labels=labels, preprocessing=replace(steps, input=name))
    _check_logits(nested, example, len(labels))
    if recipe.data.calibration:
        chosen = spread(len(data.train.classes), recipe.data.calibration)
        nested.calibrate_with(as_inputs(data.train.pixels(chosen), steps))
    return nested


def _preprocessing(recipe: Recipe, model: nn.Module, data: DataSet) -> Preprocessing:
    channels = data.train.shape[0]
    mean, std = recipe.data.mean, recipe.data.std
    known = model.card.preprocessing if isinstance(model, NestedModel) else None
    if known is not None and mean is None:
        if known.channels != channels:
            raise UsageError(
                f"model.nest: takes images of {known.channels} channels ({known.colour}), "
                f"the data has {channels}"
            )
        return known
    if mean is None or std is None:
        mean, std = channel_statistics(data.train)
    try:
        return Preprocessing(
            "input", scale=1 / 255, mean=mean, std=std, colour="GRAY" if channels == 1 else "RGB"
        )
    except ValueError as error:
        raise UsageError(f"data: {error}") from error


def _check_input(recipe: Recipe, found: tuple[int, ...]) -> None:
    expected = recipe.model.input
    if expected is not None and expected != found:
        raise UsageError(
            f"model.input: expected {list(found)}, which the images are, found {list(expected)}"
        )


def _labels(recipe: Recipe, nested: NestedModel, data: DataSet) -> tuple[str, ...]:
    given = recipe.card.labels
    if given is not None:
        if len(given) != len(data.labels):
            raise UsageError(
                f"card.labels: expected {len(data.labels)}, one for each class of the data, "
                f"found {len(given)}"
            )
        return given
    known = nested.card.labels
    if known is not None and known != data.labels:
        raise UsageError(
            f"model.nest: is for the classes {list(known)}, the data has {list(data.labels)}; "
            "if they mean the same, say so by card.labels"
        )
    return data.labels


def _check_logits(nested: NestedModel, example: torch.Tensor, classes: int) -> None:
    with torch.no_grad():
        output = nested(example)
    found = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != [1, classes]:
        raise UsageError(
            f"model: expected an output of shape [1, {classes}], a logit for each class of the "
            f"data, found {found}"
        )
