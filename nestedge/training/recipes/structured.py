"""Methods that choose structures or train all subnets of a space: rows of `methods.METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from nestedge.documents import Value
from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.training.apg import AcceleratedProximalGradient
from nestedge.training.objectives import full_objective
from nestedge.training.recipes.frame import Method, Prepare, Setup
from nestedge.training.recipes.tables import Table, table
from nestedge.training.scale_factors import add_scale_factors
from nestedge.training.shrinking import (
    Shrinking,
    delayed_shrinking,
    early_shrinking,
    progressive_shrinking,
)
from nestedge.training.sorting import sort_after
from nestedge.training.space import space_of
from nestedge.training.sss import JointOptimizer
from nestedge.training.subnets import Subnets
from nestedge.training.supernet import frozen, shrinking_objective

_SIZES = ("width", "head_width", "kernel", "depth", "branches")


def sss(keys: Value) -> Prepare:
    """Factors of structures under an l1 penalty; those at zero are taken out (SSS).

    Its keys: `gamma`, the weight of the penalty; `momentum` of the factors, 0.9 unless given;
    `neurons`, `groups` and `blocks`, patterns of what has factors, all unless given; `thresholds`,
    for each level the factor above which it keeps a structure: {selected = 0.0} unless given.
    """
    found = table(keys, ("gamma", "momentum", "neurons", "groups", "blocks", "thresholds"))
    gamma, momentum = found.required("gamma").number(), found.get("momentum")
    patterns = {name: found.strings(name) for name in ("neurons", "groups", "blocks")}
    structures: Any = {name: given for name, given in patterns.items() if given is not None}
    asked = found.get("thresholds")
    thresholds = (
        {"selected": 0.0}
        if asked is None
        else {name: value.number() for name, value in asked.members().items()}
    )

    def prepare(setup: Setup) -> Method:
        nested = setup.nested
        factors = add_scale_factors(nested, structures or None)
        weights = setup.optimizer(nested.shared.parameters())
        proximal = AcceleratedProximalGradient(
            factors.parameters(),
            lr=float(weights.param_groups[0]["lr"]),
            gamma=gamma,
            momentum=0.9 if momentum is None else momentum.number(),
        )

        def finish(trained: NestedModel) -> None:
            factors.fold(trained)
            for name, level in factors.levels(thresholds).items():
                trained.add_level(name, level)

        return Method(
            full_objective(setup.loss),
            JointOptimizer(weights, proximal),
            finish=finish,
            settled=tuple(name for name, threshold in thresholds.items() if not threshold),
        )

    return prepare


def shrinking(keys: Value) -> Prepare:
    """The subnets of a space, by delayed, early or progressive shrinking (DepS, BigNAS, OFA).

    Its keys: `plan`, "delayed" unless given, "early" or "progressive"; `width`, `head_width`,
    `kernel`, `depth` and `branches`, for each pattern of axes the sizes to choose from; `nets` of a
    step; of a delayed plan `warmup`, half of the epochs unless given, and `ramp`, 5 unless given;
    of a progressive one `kernels`, `depths` and `widths`: the epochs of its phases. The recipe's
    levels are subnets that are ready when training ends.
    """
    plans = ("plan", "nets", "warmup", "ramp", "kernels", "depths", "widths")
    found = table(keys, (*plans, *_SIZES))
    sizes = {kind: _options(value) for kind in _SIZES if (value := found.get(kind)) is not None}
    chosen = found.get("plan")
    name = "delayed" if chosen is None else chosen.choice("delayed", "early", "progressive")

    def prepare(setup: Setup) -> Method:
        nested = setup.nested
        if nested.card.batch_norm == "switchable":
            raise UsageError(
                f'{keys.where}: expected card.batch_norm = "statistics" or "shared", found '
                '"switchable": drawn subnets have no batch-norm weights of their own'
            )
        space, plan = space_of(nested, **sizes), _PLANS[name](found, setup)
        optimizer, subnets = setup.optimizer(nested.parameters()), Subnets(nested)
        objective = shrinking_objective(
            plan,
            space,
            setup.loss,
            subnets=subnets,
            rate=setup.rate,
            teacher=frozen(nested) if name == "progressive" else None,
        )
        return Method(
            objective,
            optimizer,
            after_epoch=_sorting(plan, nested, space.axes("width"), optimizer),
            finish=lambda _: subnets.close(),
        )

    return prepare


def _options(value: Value) -> dict[str, list[Any]]:
    """For each pattern its sizes: shares have a point, numbers have none."""
    return {
        pattern: [
            item.integer(minimum=1) if isinstance(item.data, int) else item.number()
            for item in sizes.elements()
        ]
        for pattern, sizes in value.members().items()
    }


def _sorting(
    plan: Shrinking, nested: NestedModel, axes: tuple[str, ...], optimizer: Optimizer
) -> Callable[[int], None] | None:
    """Channels are sorted when the first subnets come; a plan that begins with them sorts none."""
    if not plan.begins or not axes:
        return None
    return sort_after(plan.begins - 1, nested, axes=axes, optimizer=optimizer)


def _delayed(found: Table, setup: Setup) -> Shrinking:
    ramp = found.integer("ramp", 5, minimum=0)
    warmup = found.integer("warmup", max(ramp, setup.epochs // 2))
    return delayed_shrinking(warmup, ramp=ramp, nets=found.integer("nets", 4))


def _early(found: Table, _: Setup) -> Shrinking:
    return early_shrinking(nets=found.integer("nets", 4))


def _progressive(found: Table, _: Setup) -> Shrinking:
    pairs = {}
    for key, part in (("depths", "depth"), ("widths", "expand")):
        value = found.required(key)
        numbers = [item.integer(minimum=0) for item in value.elements()]
        if len(numbers) != 2:
            raise value.error("two numbers of epochs, of the two largest sizes and of all")
        pairs[part] = (numbers[0], numbers[1])
    kernel = found.integer("kernels", 0, minimum=0)
    return progressive_shrinking(kernel=kernel, depth=pairs["depth"], expand=pairs["expand"])


_PLANS: Mapping[str, Callable[[Table, Setup], Shrinking]] = {
    "delayed": _delayed,
    "early": _early,
    "progressive": _progressive,
}
