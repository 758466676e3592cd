"""ASNI-II: a network's start of training from two numbers per layer and a ternary pattern.

Every layer of a pruned network keeps two numbers, the mean of its positive weights and that of its
negative ones, beside which weights are which. Training starts anew from them, with the zeros fixed
(Damadi, Nouri & Pirsiavash, Amenable Sparse Network Investigator, 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nestedge.errors import UsageError, did_you_mean
from nestedge.masks import Mask
from nestedge.model import NestedModel
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Weight
from nestedge.program.operators import NORMALISATION, WEIGHTED
from nestedge.training.sparsity import Sparsity, prunable
from nestedge.tree import named

_NORMS = NORMALISATION - {"aten.prelu.default", "aten._weight_norm.default"}
_START = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""What norms start with."""


@dataclass(frozen=True, eq=False)
class TernaryLayer:
    """The start of one layer.

    Attributes:
        name: of its weight.
        shape: of its weight.
        positive: the mean of the positive weights; 0 where there is none.
        negative: the mean of the negative weights; 0 where there is none.
        positions: of the weights that are not zero in the flat weight, ascending; never empty.
        signs: true where such a weight is positive.
    """

    name: str
    shape: tuple[int, ...]
    positive: np.float32
    negative: np.float32
    positions: npt.NDArray[np.int64]
    signs: Mask

    def weights(self) -> npt.NDArray[np.float32]:
        """The weight as it is when training starts."""
        flat = np.zeros(math.prod(self.shape), dtype=np.float32)
        flat[self.positions] = np.where(self.signs, self.positive, self.negative)
        return flat.reshape(self.shape)

    def mask(self) -> Mask:
        """True where the weight is not zero."""
        flat = np.zeros(math.prod(self.shape), dtype=bool)
        flat[self.positions] = True
        return flat.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class TernaryStart:
    """The start of a network: its layers in the order in which they run."""

    layers: tuple[TernaryLayer, ...]


def ternary_start(nested: NestedModel) -> TernaryStart:
    """The start that a pruned network leaves behind: of every layer two means and the signs.

    A weight that is zero counts as pruned, whether it died or not.

    Raises:
        UsageError: a layer has no weight that is not zero, or one that is not finite, or the
            network has parameters that such a start does not give.
    """
    _starting_values(nested)
    tensors = named(nested.shared)
    return TernaryStart(
        tuple(_layer(name, tensors[name].detach().cpu()) for name in prunable(nested))
    )


def _layer(name: str, weight: torch.Tensor) -> TernaryLayer:
    # In double precision, so that a float32 mean of millions of weights is right to its last bit.
    flat = weight.double().numpy().ravel()
    if not np.isfinite(flat).all():
        raise UsageError(f"{name!r} is infinite or not a number")
    positions = np.flatnonzero(flat)
    if not len(positions):
        raise UsageError(f"{name!r}: expected weights that are not zero, found none")
    alive = flat[positions]
    signs = alive > 0
    return TernaryLayer(
        name=name,
        shape=tuple(weight.shape),
        positive=_mean(alive[signs]),
        negative=_mean(alive[~signs]),
        positions=positions,
        signs=signs,
    )


def _mean(values: npt.NDArray[np.float64]) -> np.float32:
    """The mean, and 0 of nothing, where numpy has no number."""
    return np.float32(values.mean() if len(values) else 0.0)


@torch.no_grad()
def start_from(start: TernaryStart, nested: NestedModel) -> Sparsity:
    """Set a network to a start, to be trained from there.

    Weights are set to the two numbers of their layer or to zero, biases to 0, norms to a scale of
    1 and a shift of 0, and their statistics to those of a new network, those of the levels too.

    Args:
        start: of a network with the same layers.
        nested: is changed.

    Returns:
        The weights that live; attach it to the optimizer, so that the others stay zero.

    Raises:
        UsageError: the start is another network's, or the network has parameters besides layers
            and norms. The network is as before.
    """
    values = _starting_values(nested)
    tensors = named(nested.shared)
    _check_layers(start, {name: tuple(tensors[name].shape) for name in prunable(nested)})
    for layer in start.layers:
        tensors[layer.name].copy_(torch.from_numpy(layer.weights()))
    owned = (nested.own_tensors(level) for level in nested.levels)
    for group in (tensors, *owned):
        for name in values.keys() & group.keys():
            group[name].fill_(values[name])
    sparsity = Sparsity(nested)
    sparsity.keep({layer.name: layer.mask() for layer in start.layers})
    return sparsity


def _check_layers(start: TernaryStart, shapes: dict[str, tuple[int, ...]]) -> None:
    for layer in start.layers:
        if layer.name not in shapes:
            known = did_you_mean(layer.name, shapes)
            raise UsageError(f"start: {layer.name!r} is no layer of the network{known}")
        if layer.shape != shapes[layer.name]:
            raise UsageError(
                f"start: {layer.name!r} has shape {list(layer.shape)}, the network's has "
                f"{list(shapes[layer.name])}"
            )
    missing = sorted(shapes.keys() - {layer.name for layer in start.layers})
    if missing:
        raise UsageError(f"start: nothing of the network's layer {missing[0]!r}")


def _starting_values(nested: NestedModel) -> dict[str, float]:
    """For every tensor of biases and norms what all of it starts with.

    Raises:
        UsageError: a parameter would be left without a value.
    """
    program = nested.elastic.program
    values: dict[str, float] = {}
    for node in program.nodes:
        if node.op in WEIGHTED:
            values |= {name: 0.0 for slot, name in _stored(node) if slot == "bias"}
        elif node.op in _NORMS:
            values |= {name: _START[slot] for slot, name in _stored(node) if slot in _START}
    counters = {f"{name.rpartition('.')[0]}.num_batches_tracked" for name in values}
    values |= dict.fromkeys(counters & program.tensors.keys(), 0.0)
    given = values.keys() | set(prunable(nested))
    for name, spec in program.tensors.items():
        if spec.role == "parameter" and name not in given:
            raise UsageError(
                f"parameter {name!r}: expected only weights and biases of convolutions, linear "
                "layers and norms, for which ASNI-II says how they start"
            )
    return values


def _stored(node: Node) -> Iterator[tuple[str, str]]:
    """The arguments of a node that are stored tensors: the argument's name, and the tensor's."""
    for slot, leaf in named_arguments(node, lambda leaf: leaf).items():
        if isinstance(leaf, Weight):
            yield slot, leaf.name
