"""NestedModel: any module as a nested network, run at any of its levels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nestedge.axes.analysis import Analysis, analyse
from nestedge.elastic import Elastic, program_at, study
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.masks import check_nested_masks, encode_masks, read_masks
from nestedge.nesting import Choice, Intervals, Nesting
from nestedge.preprocessing import Preprocessing
from nestedge.program.capture import capture
from nestedge.program.graph import Program, Weight, run
from nestedge.program.structure import flatten, rebuild
from nestedge.tree import named, register

Mode = Literal["eval", "train"]
BatchNorm = Literal["switchable", "statistics"]


@dataclass(frozen=True)
class Plan:
    """How a level runs: its program, and what it uses of every tensor that the program reads."""

    program: Program
    uses: Mapping[str, tuple[Intervals | None, ...]]


@dataclass(frozen=True)
class Origin:
    """The user's module and example inputs, from which the training program is captured."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """What travels with the weights, for those who feed and read the network.

    Attributes:
        labels: class names in the order of the logits.
        preprocessing: how an image becomes the input.
        divisor: what widths are rounded to a multiple of.
        batch_norm: "switchable": every level has batch-norm weights, biases and statistics of
            its own (slimmable networks, Yu et al., 2019, arXiv:1812.08928); "statistics": the
            weights and biases are shared.
    """

    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    divisor: int = 8
    batch_norm: BatchNorm = "switchable"


class NestedModel(nn.Module):
    """A network whose levels share one set of weights.

    It is an ordinary module: outside `at` it is the full network. In training mode it runs the
    program captured from the user's module in training mode.

    Attributes:
        nesting: the levels, and what they use of every tensor.
        card: labels, preprocessing and settings.
        aliases: other names of tied tensors, to the name in use.
        examples: one example of every input, by name, with a batch of 1.
    """

    def __init__(
        self,
        elastic: Elastic,
        tensors: Mapping[str, torch.Tensor],
        *,
        examples: Mapping[str, torch.Tensor],
        card: Card | None = None,
        aliases: Mapping[str, str] | None = None,
        origin: Origin | None = None,
        train_program: Program | None = None,
    ) -> None:
        super().__init__()
        self.elastic = elastic
        self.nesting: Nesting = elastic.nesting()
        self.card = card or Card()
        self.aliases = dict(aliases or {})
        self.examples = dict(examples)
        # A tuple, because a module in an attribute would become part of this one.
        self._origin = (origin,)
        self._train_analysis = analyse(train_program) if train_program else None
        self._plans: dict[tuple[str | None, Mode], Plan] = {}
        self._active: tuple[str, ...] = ()
        self.shared = nn.Module()
        self.own = nn.ModuleDict()
        self.codes = nn.Module()
        for name, tensor in tensors.items():
            register(self.shared, name, tensor, elastic.program.tensors[name].role)
        self.eval()

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of the levels, in the order in which they were added."""
        return tuple(self.nesting.levels)

    @property
    def training_program(self) -> Program:
        """The program that runs in training mode, captured when first needed.

        Raises:
            UsageError: torch.export cannot take the network in training mode.
        """
        return self._analysis("train").program

    def _analysis(self, mode: Mode) -> Analysis:
        if mode == "eval":
            return self.elastic.analysis
        if self._train_analysis is None:
            (origin,) = self._origin
            assert origin is not None, "a loaded network has its training program"
            was_training = origin.model.training
            captured = capture(origin.model.train(), origin.args, kwargs=origin.kwargs)
            origin.model.train(was_training)
            self._train_analysis = analyse(captured.program)
        return self._train_analysis

    def train(self, mode: bool = True) -> NestedModel:
        """Set training or evaluation mode; the first call for training captures its program."""
        super().train(mode)
        if mode:
            self._analysis("train")
        return self

    def add_level(self, name: str, level: Level | float) -> None:
        """Add a level: axes are cut at its widths; no stored tensor changes.

        Its batch-norm set starts as the full network's; give it statistics of its own with
        `nestedge.recalibrate`, or by training.

        Raises:
            UsageError: the level is taken, out of range, or its masks do not nest.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UsageError(f"level {name!r}: expected letters, digits, '_' and '-' only")
        asked = level if isinstance(level, Level) else Level(width=level)
        axes = self.nesting.axes
        choice = self.elastic.choose(asked, name, axes, divisor=self.card.divisor)
        masks = read_masks(asked.masks, name, self.elastic.program)
        owned = self._owned(choice, bool(masks))
        nesting = self.nesting.with_level(name, choice, own=owned)
        present = {t: read.numpy() for t, read in named(self.codes).items()}
        patterns, codes = encode_masks(nesting, present, name, masks)
        nesting = Nesting(nesting.axes, nesting.tensors, nesting.levels, nesting.own, patterns)
        check_nested_masks(nesting, name, codes)
        self.nesting = nesting
        self._plans.clear()
        self._store_codes(codes)
        self._store_own(name)

    def _store_codes(self, codes: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        self.codes = nn.Module()
        for tensor, code in codes.items():
            register(self.codes, tensor, torch.from_numpy(code), "buffer")

    def _owned(self, choice: Choice, masked: bool) -> frozenset[str]:
        if not choice.kept and not masked:
            return frozenset()
        return frozenset(batch_norm_tensors(self.elastic.program, self.card.batch_norm))

    def _store_own(self, level: str) -> None:
        shared = named(self.shared)
        own = sorted(self.nesting.own[level])
        kept = [t for t in own if self.nesting.uses(level, t) is not None]
        cuts = {t: cut(shared[t], self.nesting.uses(level, t)).detach().clone() for t in kept}
        self._register_own(level, cuts)

    def _register_own(self, level: str, tensors: Mapping[str, torch.Tensor]) -> None:
        tree = nn.Module()
        for tensor, value in tensors.items():
            register(tree, tensor, value, self.elastic.program.tensors[tensor].role)
        self.own[f"level_{level}"] = tree

    def restore_levels(
        self,
        nesting: Nesting,
        *,
        own: Mapping[str, Mapping[str, torch.Tensor]],
        codes: Mapping[str, npt.NDArray[np.uint8]],
    ) -> None:
        """Take the levels of a saved network of the same axes, with the tensors stored for them."""
        self.nesting = nesting
        self._plans.clear()
        self._store_codes(codes)
        for level, tensors in own.items():
            self._register_own(level, tensors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as a .nest, from which `nestedge.load` makes it again.

        Raises:
            UsageError: torch.export cannot take the network in training mode, or the network holds
                something that the format has no place for.
            OSError: the file cannot be written; what was there before stays.
        """
        # Reading a file makes a NestedModel, so the module of the format is above this one.
        from nestedge.nestfile import save

        save(self, path)

    @contextmanager
    def at(self, *levels: str) -> Iterator[NestedModel]:
        """Run at a level: inside the block, calling the model runs that level.

        With several levels the model returns a dict of their results, so that one forward pass
        of a wrapper (DistributedDataParallel) covers them all.

        Raises:
            UsageError: there is no such level.
        """
        for level in levels:
            self.nesting.choice(level)
        before, self._active = self._active, levels
        try:
            yield self
        finally:
            self._active = before

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network, or the level that `at` names.

        Raises:
            UsageError: the inputs are not nested like the example inputs.
        """
        leaves = self.leaves(*args, **kwargs)
        if not self._active:
            return self._run(None, leaves)
        if len(self._active) == 1:
            return self._run(self._active[0], leaves)
        return {level: self._run(level, leaves) for level in self._active}

    def leaves(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """The input tensors of a call, in the order of the program's inputs.

        Raises:
            UsageError: the inputs are not nested like the example inputs, or one has another
                number of dimensions.
        """
        leaves = flatten(self.elastic.program.arguments, self._bind(args, kwargs))
        for spec, leaf in zip(self.elastic.program.inputs, leaves, strict=True):
            # An image without its batch would fail far from here, and not always.
            if leaf.dim() != len(spec.shape):
                expected = ["batch" if size is None else size for size in spec.shape]
                raise UsageError(
                    f"input {spec.name!r}: expected {len(expected)} dimensions like {expected}, "
                    f"found shape {list(leaf.shape)}"
                )
        return leaves

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        structure = self.elastic.program.arguments
        if len(args) > len(structure.keys):
            raise UsageError(f"expected inputs {list(structure.keys)}, found {len(args)}")
        given = dict(zip(structure.keys, args, strict=False))
        if twice := sorted(given.keys() & kwargs.keys()):
            raise UsageError(f"inputs {twice} are given twice, by position and by name")
        fixed = {
            key: item.value
            for key, item in zip(structure.keys, structure.items, strict=True)
            if item.kind == "constant"
        }
        return {**fixed, **given, **kwargs}

    def _run(self, level: str | None, leaves: Sequence[torch.Tensor]) -> Any:
        plan = self.plan(level, "train" if self.training else "eval")
        outputs = run(plan.program, self.weights(plan, level), leaves)
        return rebuild(plan.program.results, iter(outputs))

    def plan(self, level: str | None, mode: Mode = "eval") -> Plan:
        """How a level runs; None is the full network."""
        if (level, mode) not in self._plans:
            analysis = self._analysis(mode)
            found: dict[str, tuple[Intervals | None, ...]]
            if level is None:
                program = analysis.program
                found = {t: (None,) * len(program.tensors[t].shape) for t in program.used_tensors()}
            else:
                program = program_at(analysis, self.elastic.stages, self.nesting, level)
                found = {t: self.nesting.uses(level, t) or () for t in program.used_tensors()}
            self._plans[level, mode] = Plan(program, found)
        return self._plans[level, mode]

    def weights(self, plan: Plan, level: str | None) -> dict[str, torch.Tensor]:
        """The tensors of a plan, as differentiable functions of the shared and own ones."""
        shared, codes = named(self.shared), named(self.codes)
        own = self.own_tensors(level) if level is not None else {}
        found = {}
        for name, uses in plan.uses.items():
            if name in own:
                found[name] = own[name]
                continue
            tensor = shared[name]
            if name in codes and level is not None:
                tensor = tensor * self._used_codes(name, level)[codes[name].long()]
            found[name] = cut(tensor, uses)
        return found

    def own_tensors(self, level: str) -> dict[str, torch.Tensor]:
        """The level-specific tensors of a level, by their names in the network.

        Raises:
            UsageError: there is no such level.
        """
        self.nesting.choice(level)
        return named(self.own[f"level_{level}"])

    def _used_codes(self, tensor: str, level: str) -> torch.Tensor:
        """For every code 1 where the level uses the weights that have it, else 0."""
        used = [level in levels for levels in self.nesting.patterns[tensor]]
        like = named(self.shared)[tensor]
        return torch.tensor(used, dtype=like.dtype, device=like.device)


def cut(tensor: torch.Tensor, uses: Sequence[Intervals | None] | None) -> torch.Tensor:
    """The entries of a tensor that a level uses, differentiably; a view where they are one box."""
    for dim, intervals in enumerate(uses or ()):
        if intervals is None:
            continue
        pieces = [tensor.narrow(dim, start, stop - start) for start, stop in intervals]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    return tensor


def batch_norm_tensors(program: Program, policy: BatchNorm) -> list[str]:
    """The tensors of batch norms that every level has a copy of its own of."""
    affine = 2 if policy == "switchable" else 0
    found: list[str] = []
    for node in program.nodes:
        if node.op != "aten.batch_norm.default":
            continue
        slots = [*node.args[1 : 1 + affine], *node.args[3:5]]
        names = [slot.name for slot in slots if isinstance(slot, Weight)]
        found += names
        counter = names[-1].rpartition(".")[0] + ".num_batches_tracked" if names else ""
        if counter in program.tensors:
            found.append(counter)
    return found


def nest(
    model: nn.Module,
    example_inputs: Any,
    levels: Mapping[str, Level | float],
    *,
    card: Card | None = None,
) -> NestedModel:
    """Nest any module that torch.export takes.

    The module is captured in evaluation mode and its weights are copied; it is not changed, and
    captured once more, in training mode, when the nested model is first trained or saved.

    Args:
        model: the network.
        example_inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs.
            Axis 0 of the first tensor is the batch.
        levels: for each level a width multiplier or a `Level`.
        card: labels, preprocessing and settings that travel with the network.

    Raises:
        UsageError: torch.export cannot take the network, an operator has no rule, or a level
            is out of range; the message names the place.
    """
    args, kwargs = as_call(example_inputs)
    was_training = model.training
    try:
        captured = capture(model.eval(), args, kwargs=kwargs)
    finally:
        model.train(was_training)
    nested = NestedModel(
        study(captured.program),
        {name: _copy(tensor) for name, tensor in captured.tensors.items()},
        examples=captured.examples,
        card=card,
        aliases=captured.aliases,
        origin=Origin(model, args, kwargs),
    )
    for name, level in levels.items():
        nested.add_level(name, level)
    return nested


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs from a tensor, a tuple or list, or a dict of keyword inputs."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().clone()
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copied, tensor.requires_grad) if is_parameter else copied
