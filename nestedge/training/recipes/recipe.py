"""What a recipe says, read once: from a TOML file, or from the same tables in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from nestedge.documents import Value
from nestedge.errors import FormatError, UsageError
from nestedge.levels import Level
from nestedge.plan import BatchNorm
from nestedge.toml import read_toml
from nestedge.training.precision import Precision
from nestedge.training.recipes.data import DataTable, data_table
from nestedge.training.recipes.frame import Prepare
from nestedge.training.recipes.levels import level_of
from nestedge.training.recipes.methods import METHODS, TOGETHER
from nestedge.training.recipes.optimizers import OptimizerTable, optimizer_table
from nestedge.training.recipes.schedules import ScheduleTable, schedule_table
from nestedge.training.recipes.tables import Table, at, check_plain, named, one_of, table

Factory = str | Callable[[], nn.Module]
"""What makes the network: "package.module:function", or in Python the function itself."""

_ELSEWHERE = ("root", "workers", "memory_mb")
"""Keys of the data that say where it is and how it is read, and change nothing of the training."""


@dataclass(frozen=True)
class ModelTable:
    """The network to begin with: that of a factory, or one that is nested already.

    Attributes:
        factory: what makes the network.
        weights: a checkpoint of its tensors.
        nest: a .nest to go on from.
        input: the shape that the network takes, with a batch of 1; None is that of the images.
    """

    factory: Factory | None
    weights: Path | None
    nest: Path | None
    input: tuple[int, ...] | None


@dataclass(frozen=True)
class CardTable:
    """What travels with the network; None is as the data or the .nest has it.

    Attributes:
        divisor: what widths are rounded to a multiple of.
        batch_norm: which tensors of batch norms each level has of its own.
        labels: names of the classes.
    """

    divisor: int | None
    batch_norm: BatchNorm | None
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class TrainingTable:
    """How long, and with which numbers.

    Attributes:
        epochs: how many.
        seed: of the first weights, and of all that is drawn while training.
        precision: of the forward passes.
        sync_batch_norm: whether batch norms see the images of all processes.
        label_smoothing: of the cross-entropy.
    """

    epochs: int
    seed: int
    precision: Precision
    sync_batch_norm: bool
    label_smoothing: float


@dataclass(frozen=True)
class QuantizationTable:
    """That levels are trained with the rounding of int8.

    Attributes:
        from_epoch: the first epoch that is rounded, from 0.
        activations: whether what layers read is rounded too.
    """

    from_epoch: int
    activations: bool


@dataclass(frozen=True)
class Recipe:
    """A training from the data to a .nest; `read_recipe` and `recipe_from` make one.

    Attributes:
        folder: what paths are relative to, and where the factory is imported from.
        said: all of it that decides what is trained, as JSON: a checkpoint knows its recipe by it.
        method: prepares the network as the method wants it.
        quantization: None where nothing is rounded.

    The others are a table each.
    """

    folder: Path
    said: str
    model: ModelTable
    levels: Mapping[str, Level]
    card: CardTable
    data: DataTable
    method: Prepare
    optimizer: OptimizerTable
    schedule: ScheduleTable
    training: TrainingTable
    quantization: QuantizationTable | None

    def with_data(self, root: Path) -> Recipe:
        """The same with the data somewhere else."""
        return replace(self, data=replace(self.data, root=root))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; docs/training.md says what stands in it.

    Raises:
        UsageError: there is no such file.
        FormatError: it is not TOML, or not a recipe, as in
            `recipe.toml: data.bach: unknown; expected kind, root, batch; did you mean 'batch'?`.
        OSError: it cannot be read.
    """
    return _recipe(read_toml(path), path.parent)


def recipe_from(tables: Mapping[str, Any], *, folder: Path) -> Recipe:
    """The recipe in dicts that are written as the tables of a TOML file.

    The factory may be a function, and a level a `Level`.

    Args:
        tables: by name.
        folder: what paths in them are relative to.

    Raises:
        FormatError: it is not a recipe.
    """
    return _recipe(Value(dict(tables), "recipe"), folder)


def _recipe(document: Value, folder: Path) -> Recipe:
    check_plain(document)
    names = ("model", "levels", "card", "data", "method", "optimizer", "schedule", "training")
    found = table(document, (*names, "quantization"))

    def part(name: str) -> Value:
        # A table that is not there is one that says nothing.
        return found.get(name) or Value({}, document.document, name)

    levels, rounding = found.get("levels"), found.get("quantization")
    training = _training_table(found.required("training"))
    return Recipe(
        folder=folder,
        said=_said(document),
        model=_model_table(found.required("model"), folder),
        levels={name: level_of(v) for name, v in levels.members().items()} if levels else {},
        card=_card_table(part("card")),
        data=data_table(found.required("data"), folder),
        method=_method(found.required("method")),
        optimizer=optimizer_table(found.required("optimizer")),
        schedule=schedule_table(part("schedule")),
        training=training,
        quantization=_quantization_table(rounding, found, training) if rounding else None,
    )


def _said(document: Value) -> str:
    def shown(data: object) -> str:
        # A function's own text would hold its address.
        name = getattr(data, "__qualname__", None)
        return f"{data.__module__}:{name}" if name else repr(data)

    said: dict[str, Any] = {key: value.data for key, value in document.members().items()}
    if isinstance(said.get("data"), dict):
        said["data"] = {k: v for k, v in said["data"].items() if k not in _ELSEWHERE}
    if isinstance(said.get("levels"), dict):
        # A list, because the order of levels is that of their gradients.
        said["levels"] = list(said["levels"].items())
    return json.dumps(said, default=shown)


def _model_table(value: Value, folder: Path) -> ModelTable:
    found = table(value, ("factory", "weights", "nest", "input"))
    given = found.get("factory")
    factory: Factory | None = None
    if given is not None:
        factory = _called(given.data) if callable(given.data) else given.string()
    weights, nest, shape = found.string("weights"), found.string("nest"), found.get("input")
    if (factory is None) == (nest is None):
        raise FormatError(f"{value.where}: expected either 'factory' or 'nest'")
    if nest is not None and weights is not None:
        raise FormatError(f"{at(value, 'weights')}: a .nest has its weights; leave one of the two")
    return ModelTable(
        factory,
        None if weights is None else folder / weights,
        None if nest is None else folder / nest,
        None if shape is None else tuple(size.integer(minimum=1) for size in shape.elements()),
    )


def _called(function: Callable[..., Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = function()
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise UsageError(f"model.factory: expected a torch.nn.Module, found {kind}")
        return model

    return make


def _card_table(value: Value) -> CardTable:
    found = table(value, ("divisor", "batch_norm", "labels"))
    norm = found.get("batch_norm")
    return CardTable(
        None if found.get("divisor") is None else found.integer("divisor", 8),
        None if norm is None else _policy(norm),
        found.strings("labels"),
    )


def _policy(value: Value) -> BatchNorm:
    return value.choice("switchable", "statistics", "shared")


def _training_table(value: Value) -> TrainingTable:
    found = table(value, ("epochs", "seed", "precision", "sync_batch_norm", "label_smoothing"))
    precision, smoothing = found.get("precision"), found.get("label_smoothing")
    smooth = 0.0 if smoothing is None else smoothing.number()
    if smoothing is not None and not 0 <= smooth < 1:
        raise smoothing.error("a number from 0 and below 1")
    return TrainingTable(
        found.required("epochs").integer(minimum=1),
        found.integer("seed", 0, minimum=0),
        "float32" if precision is None else precision.choice("float32", "bfloat16", "float16"),
        found.truth("sync_batch_norm", False),
        smooth,
    )


def _quantization_table(value: Value, recipe: Table, training: TrainingTable) -> QuantizationTable:
    found = table(value, ("from_epoch", "activations"))
    name = named(recipe.required("method")).string()
    if name not in TOGETHER:
        raise FormatError(
            f"{value.where}: expected one of the methods {', '.join(TOGETHER)}, which train levels "
            f"as they are built; found {name!r}: train with that first, and then from its .nest"
        )
    begin = found.integer("from_epoch", 0, minimum=0)
    if begin >= training.epochs:
        raise found.required("from_epoch").error(
            f"an epoch before the end of the {training.epochs}, the first being 0"
        )
    return QuantizationTable(begin, found.truth("activations", True))


def _method(value: Value) -> Prepare:
    name = one_of(named(value), METHODS, "method")
    keys = {key: member.data for key, member in value.members().items() if key != "name"}
    return METHODS[name](Value(keys, value.document, value.path))
