"""Unstructured pruning while a network is trained: which weights still live.

NestedNet's weight-connection learning (Kim et al., CVPR 2018, arXiv:1712.03781), a schedule of
pruning such as ASNI's, and magnitude pruning after training share one rule: a weight that has
died stays exactly zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nestedge.errors import UsageError, did_you_mean
from nestedge.masks import Mask
from nestedge.model import NestedModel
from nestedge.program.arguments import layer_weights
from nestedge.training.nested_masks import check_minimum
from nestedge.tree import named


def prunable(nested: NestedModel) -> tuple[str, ...]:
    """The names of the weights of convolutions and linear layers, in the order in which they run.

    Biases, norms and embeddings are not among them, nor a weight that is an embedding's too.
    """
    program = nested.elastic.program
    tables = {
        leaf.name
        for node in program.nodes
        if node.op == "aten.embedding.default"
        for leaf in node.leaves()
    }
    return tuple(
        name
        for name in layer_weights(program)
        if program.tensors[name].role == "parameter" and name not in tables
    )


def prunable_weights(nested: NestedModel) -> dict[str, torch.Tensor]:
    """The weights that `prunable` names."""
    tensors = named(nested.shared)
    return {name: tensors[name] for name in prunable(nested)}


class Sparsity:
    """Which weights of a network live, while it is pruned and trained.

    The weights that have died are exactly zero in the network itself, at once and, by `attach`,
    after every step of an optimizer. None ever revives.

    No layer is emptied: where a threshold would leave fewer weights of a layer than `minimum`, its
    largest ones stay, the first of equal ones, although they are below it. So fewer weights may
    die than were asked for.

    Args:
        nested: its full network is pruned; at first every weight that `prunable` names lives.
        minimum: how many weights every layer keeps; a layer that has no more keeps all.

    Raises:
        UsageError: the network has no weight to prune, or the minimum is below 1.
    """

    def __init__(self, nested: NestedModel, *, minimum: int = 1) -> None:
        check_minimum(minimum)
        self.weights = prunable_weights(nested)
        if not self.weights:
            raise UsageError("expected a convolution or a linear layer to prune, found none")
        self.minimum = minimum
        self._live = {
            name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights.items()
        }

    def survivors(self) -> int:
        """How many weights live."""
        return sum(int(live.sum()) for live in self._live.values())

    def density(self) -> float:
        """The share of the weights that live, of those that can be pruned."""
        return self.survivors() / sum(weight.numel() for weight in self.weights.values())

    def masks(self) -> dict[str, Mask]:
        """What lives, as `Level(masks=...)` takes it."""
        return {name: live.cpu().numpy().copy() for name, live in self._live.items()}

    def prune(self, count: int) -> None:
        """Let the smallest survivors of all layers die: `count`, and those as large as the last.

        Raises:
            UsageError: there are not as many survivors.
        """
        survivors = self.survivors()
        if not 0 <= count <= survivors:
            raise UsageError(f"count: expected 0 to {survivors} survivors, found {count}")
        if count:
            magnitudes = [w.detach().abs()[self._live[name]] for name, w in self.weights.items()]
            self.cut(torch.cat(magnitudes).kthvalue(count).values.item())

    @torch.no_grad()
    def cut(self, threshold: float) -> None:
        """Let every survivor die whose magnitude is the threshold or below."""
        for name, weight in self.weights.items():
            live = self._live[name]
            kept = live & (weight.abs() > threshold)
            if int(kept.sum()) < self._least(name):
                kept = _largest(weight, live, self._least(name))
            self._set(name, kept)

    @torch.no_grad()
    def keep(self, masks: Mapping[str, npt.ArrayLike]) -> None:
        """Let every survivor die that a mask is false for; a layer without a mask stays as it is.

        Raises:
            UsageError: a mask is not of a weight that is pruned, has not its shape, or leaves a
                layer less than its minimum.
        """
        for name, mask in masks.items():
            if name not in self.weights:
                known = did_you_mean(name, self.weights)
                raise UsageError(f"mask for {name!r}, which is not pruned{known}")
            live = self._live[name]
            array = np.asarray(mask, dtype=bool)
            _check_shape(name, array.shape, live.shape)
            kept = live & torch.from_numpy(array.copy()).to(live.device)
            self._check_least(name, kept)
            self._set(name, kept)

    def attach(self, optimizer: Optimizer, *, threshold: float | None = None) -> RemovableHandle:
        """Keep dead weights at zero after every step of an optimizer, until the handle is removed.

        What the optimizer remembers of them (momentum, Adam's moments: every state tensor of a
        weight's shape) becomes zero with them, so that none is lifted again. Their gradients are
        still computed, and count where gradients are clipped by their norm.

        With a threshold this is weight-connection learning: weights whose magnitude is not above
        it die, at once and after every step. NestedNet writes the mask as
        tanh(1e5 * relu(|w| - threshold)), which is this hard one but for a band of 1e-5 above the
        threshold, in which its gradient is up to |w| * 1e5 times the weight's own: 1500 times at a
        threshold of 0.015. Here the gradient is the weight's own.

        Raises:
            UsageError: the optimizer has none of the weights.
        """
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if held.isdisjoint(map(id, self.weights.values())):
            raise UsageError(
                "optimizer: expected weights that are pruned, found none of them; make it from "
                "the parameters of the nested network"
            )

        def after_step(stepped: Optimizer, _args: object, _kwargs: object) -> None:
            if threshold is not None:
                self.cut(threshold)
            self._silence(stepped)

        if threshold is not None:
            self.cut(threshold)
        return optimizer.register_step_post_hook(after_step)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What lives, by the weights' names: with the network's and the optimizer's, all state."""
        return {name: live.clone() for name, live in self._live.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what `state_dict` gave, in place of what lives now; what has died becomes zero.

        Raises:
            UsageError: it is of another network.
        """
        if set(state) != set(self.weights):
            raise UsageError(f"expected masks of {sorted(self.weights)}, found {sorted(state)}")
        for name, live in state.items():
            _check_shape(name, tuple(live.shape), self.weights[name].shape)
            if live.dtype != torch.bool:
                raise UsageError(f"mask of {name!r}: expected torch.bool, found {live.dtype}")
            self._check_least(name, live)
        for name, live in state.items():
            self._set(name, live.to(self.weights[name].device, copy=True))

    def _least(self, name: str) -> int:
        return min(self.minimum, self.weights[name].numel())

    def _check_least(self, name: str, live: torch.Tensor) -> None:
        if int(live.sum()) < self._least(name):
            raise UsageError(
                f"mask of {name!r}: expected at least {self._least(name)} weights that live, found "
                f"{int(live.sum())}; a layer without weights would give a constant"
            )

    def _set(self, name: str, live: torch.Tensor) -> None:
        self._live[name] = live
        # Not by a product: zero times infinity is not zero.
        self.weights[name].masked_fill_(~live, 0)

    @torch.no_grad()
    def _silence(self, optimizer: Optimizer) -> None:
        for name, weight in self.weights.items():
            # The network may have moved to another device since it was pruned last.
            self._live[name] = live = self._live[name].to(weight.device)
            for tensor in (weight, *optimizer.state.get(weight, {}).values()):
                if isinstance(tensor, torch.Tensor) and tensor.shape == weight.shape:
                    tensor.masked_fill_(~live, 0)


def _largest(weight: torch.Tensor, live: torch.Tensor, count: int) -> torch.Tensor:
    """A mask of the largest survivors, the first of equal ones."""
    scores = weight.abs().masked_fill(~live, -1).flatten()
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[:count]] = True
    return kept.reshape(weight.shape)


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != tuple(expected):
        raise UsageError(f"mask of {name!r}: expected shape {list(expected)}, found {list(found)}")
