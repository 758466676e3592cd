"""Methods whose levels are sparse: rows of `methods.METHODS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from nestedge.documents import Value
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.masks import Mask
from nestedge.model import NestedModel
from nestedge.training.affine_scaling import Diversity, log_sum, p_norm_like, scale_updates
from nestedge.training.asni import ScheduledPruning, Sigmoid
from nestedge.training.nested_masks import Scope, nested_masks, random_masks
from nestedge.training.objectives import Step, full_objective, joint_objective
from nestedge.training.recipes.frame import Method, Prepare, Setup
from nestedge.training.recipes.tables import table
from nestedge.training.sparsity import Sparsity, prunable_weights
from nestedge.training.ternary import start_from
from nestedge.training.ternary_file import read_start


def connections(keys: Value) -> Prepare:
    """Levels of the largest weights, trained together with the full network (NestedNet).

    Its keys: `densities`, for each level the share of the weights that it keeps; `dense`, how many
    epochs train the full network alone before the levels are made, half of all unless given;
    `scope`, "global" or "layer"; `random`, whether weights are drawn instead: the paper's control.
    """
    found = table(keys, ("densities", "dense", "scope", "random"))
    densities = {name: v.number() for name, v in found.required("densities").members().items()}
    asked, scope, drawn = found.get("dense"), found.get("scope"), found.truth("random", False)
    among: Scope = "global" if scope is None else scope.choice("global", "layer")

    def prepare(setup: Setup) -> Method:
        dense = setup.epochs // 2 if asked is None else asked.integer(minimum=0)
        if dense >= setup.epochs:
            raise UsageError(
                f"{keys.where}.dense: expected fewer than the {setup.epochs} epochs, found {dense}"
            )
        levels = _SparseLevels(setup.nested)

        def make() -> None:
            weights = prunable_weights(setup.nested)
            levels.add(
                random_masks(weights, densities, seed=setup.seed, scope=among)
                if drawn
                else nested_masks(weights, densities, scope=among)
            )

        def after_epoch(epoch: int) -> None:
            if epoch + 1 == dense:
                make()

        if not dense:
            make()
        alone = full_objective(setup.loss)

        def objective(
            nested: NestedModel, inputs: Any, target: Any, step: Step
        ) -> Iterator[torch.Tensor]:
            if step.epoch < dense:
                return alone(nested, inputs, target, step)
            return joint_objective(nested.levels, setup.loss)(nested, inputs, target, step)

        return Method(
            objective,
            setup.optimizer(setup.nested.parameters()),
            after_epoch=after_epoch,
            state={"masks": levels},
        )

    return prepare


class _SparseLevels:
    """Levels of masks that come while a network trains, and that a checkpoint brings back."""

    def __init__(self, nested: NestedModel) -> None:
        self._nested = nested
        self._masks: dict[str, dict[str, Mask]] = {}

    def add(self, masks: Mapping[str, Mapping[str, Mask]]) -> None:
        """Add a level for each; they have batch-norm statistics of their own and no more."""
        for level, of_level in masks.items():
            self._masks[level] = dict(of_level)
            # A weight of its own would be unknown to the optimizer, which is made before.
            self._nested.add_level(level, Level(masks=of_level), batch_norm="statistics")

    def state_dict(self) -> dict[str, Any]:
        """The masks, by level and tensor."""
        return {
            level: {name: torch.from_numpy(mask) for name, mask in of_level.items()}
            for level, of_level in self._masks.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Add the levels that `state_dict` gave and that are not there yet."""
        found = {level: {n: m.numpy() for n, m in masks.items()} for level, masks in state.items()}
        self.add({level: masks for level, masks in found.items() if level not in self._masks})


def ssgd(keys: Value) -> Prepare:
    """Updates scaled by the weights' own size, then levels of the largest weights (SSGD).

    Its keys: `densities`, for each level the share of the weights that is left; `measure`,
    "log-sum" or "p-norm-like"; `epsilon`; `p`; `reweighting`, "l2" or "l1"; `limit`, the most that
    an update is multiplied by.
    """
    names = ("densities", "measure", "epsilon", "p", "reweighting", "limit")
    found = table(keys, names)
    densities = {name: v.number() for name, v in found.required("densities").members().items()}
    diversity = _diversity(keys)
    limit = found.get("limit")

    def prepare(setup: Setup) -> Method:
        optimizer = setup.optimizer(setup.nested.parameters())
        scale_updates(optimizer, diversity, limit=None if limit is None else limit.number())

        def finish(nested: NestedModel) -> None:
            _SparseLevels(nested).add(nested_masks(prunable_weights(nested), densities))

        return Method(full_objective(setup.loss), optimizer, finish=finish)

    return prepare


def _diversity(keys: Value) -> Diversity:
    members = keys.members()
    measure = members["measure"].choice("log-sum", "p-norm-like") if "measure" in members else ""
    given: dict[str, Any] = {
        name: members[name].number() for name in ("epsilon", "p") if name in members
    }
    if "reweighting" in members:
        given["reweighting"] = members["reweighting"].choice("l2", "l1")
    if measure == "p-norm-like":
        return p_norm_like(**given)
    if "p" in given:
        raise members["p"].error('nothing, since only measure = "p-norm-like" has it')
    return log_sum(**given)


def asni(keys: Value) -> Prepare:
    """A global sparsity that rises as a sigmoid (ASNI-I), or a start of two numbers a layer (II).

    Its keys: `level`, the name of the sparse level, "sparse" unless given; for I `magnitude`, the
    percentage of dead weights to end at, `scale` and `centre` of the sigmoid; for II `start`, a
    file as `write_start` writes it, whose pattern stays.
    """
    found = table(keys, ("level", "magnitude", "scale", "centre", "start"))
    level, start = found.string("level") or "sparse", found.string("start")
    given = [value for key in ("magnitude", "scale", "centre") if (value := found.get(key))]
    if start is not None and given:
        raise given[0].error("nothing beside start, whose pattern stays")
    rise = None
    if start is None:
        magnitude, scale = (found.required(key).number() for key in ("magnitude", "scale"))
        rise = Sigmoid(magnitude, scale, found.share("centre", 0.5))

    def prepare(setup: Setup) -> Method:
        nested, pruning = setup.nested, None
        if start is not None:
            sparsity = start_from(read_start(setup.folder / start), nested)
        else:
            assert rise is not None, "there is no start"
            sparsity = Sparsity(nested)
            pruning = ScheduledPruning(sparsity, setup.epochs, schedule=rise.at)
        optimizer = setup.optimizer(nested.parameters())
        sparsity.attach(optimizer)

        def finish(trained: NestedModel) -> None:
            _SparseLevels(trained).add({level: sparsity.masks()})

        return Method(
            full_objective(setup.loss),
            optimizer,
            after_epoch=pruning,
            state={"sparsity": pruning or sparsity},
            finish=finish,
            settled=(level,),
        )

    return prepare
