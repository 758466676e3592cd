"""torch's optimizers by name, with their arguments checked."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nestedge.documents import Value
from nestedge.errors import FormatError
from nestedge.training.recipes.tables import named, one_of, table

_OTHERS = ("Optimizer", "LBFGS", "SparseAdam", "Muon")
"""No optimizer, or one for a step that is a function, sparse gradients, or matrices alone."""


@dataclass(frozen=True)
class OptimizerTable:
    """An optimizer of torch.

    Attributes:
        where: the table, for errors.
        name: of its class.
        arguments: by keyword.
        decays_all: whether weight decay is for all parameters, or only for those of two dimensions
            or more: weights, but not biases or batch norms.
    """

    where: str
    name: str
    arguments: Mapping[str, Any]
    decays_all: bool

    @property
    def rate(self) -> float:
        """The learning rate to begin with."""
        given = self.arguments.get("lr", _parameters(self.name)["lr"].default)
        return float(given)

    def make(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer of these parameters; those that cannot be trained are left out.

        Raises:
            FormatError: torch refuses an argument.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        if not self.decays_all:
            weights = [parameter for parameter in trained if parameter.dim() > 1]
            others = [parameter for parameter in trained if parameter.dim() <= 1]
            groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        try:
            made = _optimizers()[self.name]([g for g in groups if g["params"]], **self.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"{self.where}: torch.optim.{self.name}: {error}") from error
        return made


def optimizer_table(value: Value) -> OptimizerTable:
    """The optimizer that a table names; its other keys are arguments of torch's class.

    Raises:
        FormatError: torch has no such optimizer, it has no such argument, or refuses one.
    """
    name = one_of(named(value), _optimizers(), "optimizer")
    known = _parameters(name)
    found = table(value, ("name", "decay", *known))
    decay = found.get("decay")
    arguments = {
        key: _argument(member)
        for key, member in found.members.items()
        if key not in ("name", "decay")
    }
    decays_all = decay is None or decay.choice("all", "weights") == "all"
    made = OptimizerTable(value.where, name, arguments, decays_all)
    if not made.rate > 0:
        raise found.required("lr").error("a learning rate above 0")
    # Refused now, not when the data has been read.
    made.make([nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))])
    return made


def _argument(value: Value) -> Any:
    if isinstance(value.data, list):
        return tuple(item.number() for item in value.elements())
    if isinstance(value.data, (str, bool, int)):
        return value.data
    return value.number()


def _optimizers() -> dict[str, type[Optimizer]]:
    found = {name: getattr(torch.optim, name) for name in dir(torch.optim)}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, Optimizer) and name not in _OTHERS
    }


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """The arguments of an optimizer besides what it optimises."""
    found = inspect.signature(_optimizers()[name]).parameters
    return {key: parameter for key, parameter in found.items() if key != "params"}
