"""NestedModel: a network whose levels share one set of weights, run at any of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nestedge.axes.analysis import Analysis, analyse
from nestedge.calibration import Calibration
from nestedge.card import Card
from nestedge.elastic import Elastic
from nestedge.inputs import calibration_from, input_tensors
from nestedge.levels import Level, check_name
from nestedge.masks import check_nested_masks, encode_masks, read_masks
from nestedge.nesting import Nesting
from nestedge.origin import Origin, training_program
from nestedge.plan import BatchNorm, Mode, Plan, own_tensors
from nestedge.program.graph import Operate, Program, run
from nestedge.program.structure import rebuild
from nestedge.stored import own_specs, typed
from nestedge.tree import named, register, tree_of
from nestedge.voting import join_plans
from nestedge.weights import Weights, plan_level


class NestedModel(nn.Module):
    """A network whose levels share one set of weights.

    It is an ordinary module: outside `at` it is the full network. In training mode it runs the
    program captured from the user's module in training mode.

    Attributes:
        nesting: the levels, and what they use of every tensor.
        card: labels, preprocessing and settings.
        aliases: other names of tied tensors, to the name in use.
        examples: one example of every input, by name, with a batch of 1.
        calibration: inputs as the network meets them, for int8; None where it has none.
        views: while it trains, modules that give some shared tensors, by name, as functions of
            all: scale factors. They are folded before it is saved.
        operation: while it trains, gives for a level (None is the full network) and its plan what
            calls the operators of one run: with rounded numbers. None is as they stand.
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
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.elastic = elastic
        self.nesting: Nesting = elastic.nesting()
        self.card = card or Card()
        self.aliases = dict(aliases or {})
        self.examples = dict(examples)
        self.calibration = calibration
        # A tuple, because a module in an attribute would become part of this one.
        self._origin = (origin,)
        self._train_analysis = analyse(train_program) if train_program else None
        self._plans: dict[tuple[str | None, Mode], Plan] = {}
        self._active: tuple[str, ...] = ()
        self.operation: Callable[[str | None, Plan], Operate] | None = None
        self.shared = nn.Module()
        self.own = nn.ModuleDict()
        self.codes = nn.Module()
        self.views = nn.ModuleList()
        for name, tensor in tensors.items():
            register(self.shared, name, tensor, elastic.program.tensors[name].role)
        self.eval()

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of the levels, in the order in which they were added; consensus ones last."""
        return self.nesting.names

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
            self._train_analysis = analyse(training_program(origin, named(self.shared)))
        return self._train_analysis

    def train(self, mode: bool = True) -> NestedModel:
        """Set training or evaluation mode; the first call for training captures its program."""
        super().train(mode)
        if mode:
            self._analysis("train")
        return self

    def add_level(
        self,
        name: str,
        level: Level | float,
        *,
        batch_norm: BatchNorm | None = None,
        own: Sequence[str] | None = None,
    ) -> None:
        """Add a level: axes are cut at its widths; no stored tensor changes.

        Its batch-norm set starts as the full network's; give it statistics of its own with
        `nestedge.recalibrate`, or by training.

        Args:
            name: of the level.
            level: a width multiplier, or what it keeps.
            batch_norm: which batch-norm tensors it has of its own; as the card says unless given.
            own: patterns of the others that it has of its own; as the card says unless given.

        Raises:
            UsageError: the level is taken or out of range, its masks do not nest, or a pattern fits
                nothing.
        """
        check_name(name)
        asked = level if isinstance(level, Level) else Level(width=level)
        axes = self.nesting.axes
        choice = self.elastic.choose(asked, name, axes, divisor=self.card.divisor)
        masks = read_masks(asked.masks, name, self.elastic.program)
        owned = own_tensors(
            self.elastic.program,
            batch_norm=batch_norm or self.card.batch_norm,
            patterns=self.card.own if own is None else own,
            aliases=self.aliases,
        )
        nesting = self.nesting.with_level(name, choice, own=owned if choice.kept or masks else ())
        present = {t: code.cpu().numpy() for t, code in named(self.codes).items()}
        patterns, codes = encode_masks(nesting, present, name, masks)
        nesting = replace(nesting, patterns=patterns)
        check_nested_masks(nesting, name, codes)
        self.nesting = nesting
        self._store_codes(codes)
        self._store_own(name)

    def remove_level(self, name: str) -> None:
        """Remove a level and its own tensors.

        Raises:
            UsageError: there is no such level, or a consensus needs it.
        """
        self.nesting = self.nesting.without_level(name)
        self._plans = {key: plan for key, plan in self._plans.items() if key[0] != name}
        del self.own[f"level_{name}"]

    def _store_codes(self, codes: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        places = {name: tensor.device for name, tensor in named(self.shared).items()}
        self.codes = tree_of({n: torch.from_numpy(c).to(places[n]) for n, c in codes.items()})

    def _store_own(self, level: str) -> None:
        """Copies of what the level uses of the shared tensors that it has of its own."""
        specs = own_specs(self.elastic.program, self.nesting, level)
        uses = {name: self.nesting.uses(level, name) for name in specs}
        found = replace(self._weights(), own=lambda _: {}).of(level, uses)
        self.register_own(level, typed({n: t.detach().clone() for n, t in found.items()}, specs))

    def register_own(self, level: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors that a level has of its own."""
        self.own[f"level_{level}"] = tree_of(tensors)

    def _weights(self) -> Weights:
        shared = named(self.shared)
        for view in self.views:
            shared |= view(shared)
        return Weights(self.nesting, shared, named(self.codes), self.own_tensors)

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
            self.register_own(level, tensors)

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
            self.nesting.members(level)
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
                shape.
        """
        return input_tensors(self.elastic.program, args, kwargs)

    def calibrate_with(self, inputs: Any) -> None:
        """Take calibration data, from which the ranges of int8 artifacts are taken.

        It travels with the network, and replaces what there was.

        Args:
            inputs: like the example inputs of `nest`, with many cases along the batch axis; an
                input without one is given as in any call.

        Raises:
            UsageError: they do not fit the network, or hold a number that is not finite.
        """
        self.calibration = calibration_from(self.elastic.program, inputs)

    def _run(self, level: str | None, leaves: Sequence[torch.Tensor]) -> Any:
        plan = self.plan(level, "train" if self.training else "eval")
        operate = self.operation(level, plan) if self.operation else None
        outputs = run(plan.program, self.weights(plan, level), leaves, operate=operate)
        return rebuild(plan.program.results, iter(outputs))

    def plan(self, level: str | None, mode: Mode = "eval") -> Plan:
        """How a level runs; None is the full network."""
        if (level, mode) not in self._plans:
            consensus = self.nesting.consensus.get(level or "")
            self._plans[level, mode] = (
                plan_level(self._analysis(mode), self.elastic, self.nesting, level)
                if consensus is None
                else join_plans({m: self.plan(m, mode) for m in consensus.members}, consensus)
            )
        return self._plans[level, mode]

    def weights(self, plan: Plan, level: str | None) -> dict[str, torch.Tensor]:
        """The tensors of a plan, as differentiable functions of the shared and own ones."""
        return self._weights().of(level, plan.uses)

    def own_tensors(self, level: str) -> dict[str, torch.Tensor]:
        """The level-specific tensors of a level, by their names in the network.

        Raises:
            UsageError: there is no such level.
        """
        self.nesting.members(level)
        return named(self.own[f"level_{level}"])
