"""Levels trained with the rounding of int8, so that their int8 files lose less.

Weights of convolutions and linear layers, and what these layers read, take part in a step of
training as the whole numbers that int8 has for them, times their steps; weights are updated in full
precision (Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.1). The gradient passes straight
through the rounding (Bengio et al., 2013, arXiv:1308.3432), and is zero where a number is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from nestedge.errors import UsageError
from nestedge.folding import LAYERS
from nestedge.model import NestedModel
from nestedge.plan import Plan, cut
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Ref, Weight, call
from nestedge.training.precision import losses_inside

OBSERVED = 0.1
"""Share of a batch in the running extremes of what a layer reads."""

_LARGEST = 127
_PLACES = 255
_FULL = ""
"""What stands for the full network where levels go by their names: no level is called so."""

Ranges = dict[str, torch.Tensor]
"""The least and the largest number that a layer reads, shape (2,), by layer."""


class FakeQuantization:
    """The rounding of int8 in training, and the ranges that it has found.

    Every output channel of a weight has the step that the weight has in the whole network, before
    a batch norm is folded into it: the grid of `nestedge.grids`, so that levels train on the same
    whole numbers as their int8 files share. A weight that is a level's own has steps of its own.
    Every level has ranges of its own of what its layers read: running extremes of the batches,
    which follow the weights as they move. They are a part of checkpoints, and not of the .nest: a
    build takes ranges from calibration data.

    Batch norms train on statistics of their batches, as ever. Frozen ones would be those of a level
    without rounding, and of weights from before the other levels moved them. The reason for which
    others freeze them, folded weights whose steps tremble with each batch, is not there: the factor
    of a batch norm goes into the step, and changes no whole number.

    Args:
        nested: the network to train.
        from_epoch: the first epoch whose steps are rounded, from 0.
        activations: whether what layers read is rounded too, and not weights alone.

    Raises:
        UsageError: there is no layer to round, or no such epoch.
    """

    def __init__(
        self, nested: NestedModel, *, from_epoch: int = 0, activations: bool = True
    ) -> None:
        if from_epoch < 0:
            raise UsageError(f"from_epoch: expected 0 or more, found {from_epoch}")
        if not any(node.op in LAYERS for node in nested.elastic.program.nodes):
            raise UsageError(
                "quantization: the network has no convolution or linear layer, so that int8 rounds "
                "nothing of it; train it without"
            )
        self.nested = nested
        self.from_epoch = from_epoch
        self._activations = activations
        self._ranges: dict[str, Ranges] = {}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the network runs as int8 rounds it, at whatever level.

        In training mode its runs move the ranges; in evaluation mode they are held, and what has
        none is not rounded. What runs a level without calling the network, as drawn subnets, is
        as it was.
        """
        before, self.nested.operation = self.nested.operation, self._operation
        try:
            yield
        finally:
            self.nested.operation = before

    def losses(self, losses: Iterator[torch.Tensor], *, epoch: int) -> Iterator[torch.Tensor]:
        """The same losses; of an epoch that is rounded, each computed on rounded numbers."""
        return losses if epoch < self.from_epoch else losses_inside(losses, self.applied)

    def extremes(self) -> list[torch.Tensor]:
        """All ranges, for processes that train together to average."""
        return [extremes for ranges in self._ranges.values() for extremes in ranges.values()]

    def state_dict(self) -> dict[str, Any]:
        """The ranges, by level and layer."""
        return {level: dict(ranges) for level, ranges in self._ranges.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Take what `state_dict` gave."""
        device = next(self.nested.parameters()).device
        self._ranges = {
            level: {layer: extremes.to(device) for layer, extremes in ranges.items()}
            for level, ranges in state.items()
        }

    def _operation(self, level: str | None, plan: Plan) -> _Rounding:
        nested = self.nested
        whole = nested.weights(nested.plan(None, "train" if nested.training else "eval"), None)
        return _Rounding(
            steps=_shared_steps(nested, level, plan, whole),
            layers=layer_inputs(plan.program) if self._activations else {},
            ranges=self._ranges.setdefault(level or _FULL, {}),
            observes=nested.training,
        )


@dataclass(frozen=True)
class _Rounding:
    """Calls the operators of one run of a level, on rounded numbers.

    Attributes:
        steps: of the weights that the level shares with the whole network, by name.
        layers: the values that layers read, and the first layer that reads each.
        ranges: of the level.
        observes: whether ranges follow what is read.
        rounded: what has been read so far, rounded, by the value's name.
    """

    steps: Mapping[str, torch.Tensor]
    layers: Mapping[str, str]
    ranges: Ranges
    observes: bool
    rounded: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(
        self, node: Node, look_up: Callable[[Ref | Weight], Any], *, device: torch.device | None
    ) -> tuple[Any, ...]:
        """The outputs of a node, of what it reads rounded."""
        weight = named_arguments(node, _same)["weight"] if node.op in LAYERS else None

        def read(leaf: Ref | Weight) -> Any:
            value = look_up(leaf)
            if weight is not None and leaf == weight:
                steps = self.steps.get(leaf.name) if isinstance(leaf, Weight) else None
                return rounded_weight(value, weight_steps(value) if steps is None else steps)
            # All readers of 8 bits get them: a sum reads what the next convolution does.
            if isinstance(leaf, Ref) and leaf.name in self.layers:
                return self._activation(leaf.name, value)
            return value

        return call(node, read, device=device)

    def _activation(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.rounded:
            layer = self.layers[name]
            if self.observes:
                self.ranges[layer] = observed(value, self.ranges.get(layer))
            extremes = self.ranges.get(layer)
            self.rounded[name] = value if extremes is None else rounded_activation(value, extremes)
        return self.rounded[name]


def weight_steps(weight: torch.Tensor) -> torch.Tensor:
    """What a 1 of int8 stands for in each output channel: the largest magnitude / 127.

    That of nothing but zeros is 1, as in `nestedge.quantization`, to the bit.

    Args:
        weight: with the output channels first.
    """
    steps = weight.detach().abs().flatten(1).amax(1) / _LARGEST
    return torch.where(steps < torch.finfo(steps.dtype).tiny, 1.0, steps)


def rounded_weight(weight: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """A weight in whole steps, of which the gradient is the weight's.

    Args:
        weight: with the output channels first.
        steps: one for each of them; no magnitude of a channel is beyond 127 of its steps.
    """
    along = steps.reshape(-1, *(1,) * (weight.dim() - 1))
    found = (weight.detach() / along).round_().clamp_(-_LARGEST - 1, _LARGEST).mul_(along)
    return _in_place_of(found, weight)


def rounded_activation(value: torch.Tensor, extremes: torch.Tensor) -> torch.Tensor:
    """Numbers in steps of 255 between two extremes; the gradient is zero where it is clipped.

    Args:
        value: floating point; half precision is rounded in single.
        extremes: the least and the largest that is not clipped, shape (2,), with 0 between them.
    """
    low, high = extremes
    step = (high - low) / _PLACES
    step = torch.where(step < torch.finfo(step.dtype).tiny, 1.0, step)
    zero = (-low / step).round()
    wide = value.to(torch.promote_types(value.dtype, extremes.dtype))
    found = (wide.detach() / step).round_().add_(zero).clamp_(0, _PLACES).sub_(zero).mul_(step)
    # What is rounded to the first or the last place is not clipped.
    inside = wide.clamp((-0.5 - zero) * step, (_PLACES + 0.5 - zero) * step)
    return _in_place_of(found, inside).to(value.dtype)


@torch.no_grad()
def observed(value: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
    """Running extremes of what a layer reads, with 0 between them, in single precision.

    Args:
        value: what is read now.
        before: the extremes so far; None at first.
    """
    low, high = torch.aminmax(value)
    found = torch.stack((low.clamp(max=0), high.clamp(min=0))).float()
    return found if before is None else torch.lerp(before, found, OBSERVED)


def layer_inputs(program: Program) -> dict[str, str]:
    """The values that convolutions and linear layers read, and the first layer that reads each.

    A layer goes by the name of its weight, which is the same in training and in evaluation; when it
    is called once more, by a number too.
    """
    calls: dict[str, int] = {}
    found: dict[str, str] = {}
    for node in program.nodes:
        if node.op not in LAYERS:
            continue
        a = named_arguments(node, _same)
        name = a["weight"].name if isinstance(a["weight"], Weight) else node.scope
        calls[name] = calls.get(name, 0) + 1
        if isinstance(a["input"], Ref):
            found.setdefault(a["input"].name, name if calls[name] == 1 else f"{name}:{calls[name]}")
    return found


def _shared_steps(
    nested: NestedModel, level: str | None, plan: Plan, whole: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The steps of the weights that a level shares with the whole network, at its channels."""
    found = {}
    for node in plan.program.nodes:
        weight = named_arguments(node, _same)["weight"] if node.op in LAYERS else None
        if not isinstance(weight, Weight):
            continue
        # The tensors of a consensus are those of its members, behind their names, and its own.
        member, _, name = weight.name.rpartition("/")
        owner = member or level
        if name in whole and (owner is None or name not in nested.own_tensors(owner)):
            found[weight.name] = cut(weight_steps(whole[name]), plan.uses[weight.name][:1])
    return found


def _in_place_of(found: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Numbers whose gradient is another tensor's: to the bit, since what is added is zero."""
    return found + (source - source.detach())


def _same(leaf: Ref | Weight) -> Ref | Weight:
    return leaf
