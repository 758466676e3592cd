"""What is elastic about a network, and its program at a level."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nestedge.axes.analysis import ALWAYS, Analysis, analyse
from nestedge.axes.blocks import Stage, find_stages, without_blocks
from nestedge.axes.layout import Layout, lay_out
from nestedge.axes.rewrite import Survival, specialise
from nestedge.errors import UsageError
from nestedge.intervals import entries
from nestedge.levels import Level, choose
from nestedge.nesting import Axis, Choice, Nesting, TensorLayout
from nestedge.program.graph import Program, Ref


@dataclass(frozen=True)
class Elastic:
    """One network: its program, its axes, and the stages whose blocks a level may leave out."""

    program: Program
    analysis: Analysis
    layout: Layout
    stages: tuple[Stage, ...]

    def nesting(self) -> Nesting:
        """The axes and tensors of the network, with no level yet."""
        depth = {stage.name: Axis(len(stage.blocks), kind="depth") for stage in self.stages}
        requires = {
            tensor: (stage.name, stage.blocks.index(path))
            for stage in self.stages
            for path, block in stage.removable.items()
            for tensor in block.tensors
        }
        tensors = {
            name: replace(layout, requires=(requires[name],)) if name in requires else layout
            for name, layout in self._all_tensors().items()
        }
        return Nesting({**self.layout.axes, **depth}, tensors)

    def _all_tensors(self) -> dict[str, TensorLayout]:
        whole = {n: TensorLayout(((),) * len(s.shape)) for n, s in self.program.tensors.items()}
        return {**whole, **self.layout.tensors}

    def choose(self, level: Level, name: str, axes: Mapping[str, Axis], *, divisor: int) -> Choice:
        """The units that a level keeps; what a dropped block concatenates goes with it."""
        choice = choose(level, name, axes, divisor=divisor)
        kept = dict(choice.kept)
        for stage in self.stages:
            for path in _dropped(stage, choice):
                for piece in stage.removable[path].pieces:
                    kept.update(dict.fromkeys(self._axes_of(piece), ()))
        return Choice(kept)

    def is_separate(self, value: str, own: Collection[str]) -> bool:
        """Whether all units of a value may go, and leave no tensor but the `own` ones empty."""
        rows = [row for rows in self.analysis.of(Ref(value)).values() for row in rows]
        axes = self._axes_of(value)
        return any((row != ALWAYS).all() for row in rows) and not any(
            runs and all(run.axis in axes for run in runs)
            for tensor, layout in self.layout.tensors.items()
            if tensor not in own
            for runs in layout.dims
        )

    def _axes_of(self, value: str) -> set[str]:
        rows = [row for rows in self.analysis.of(Ref(value)).values() for row in rows]
        return {self.layout.axis_of[unit] for row in rows for unit in row if unit != ALWAYS}


def study(program: Program) -> Elastic:
    """Find what is elastic about a program.

    Raises:
        UsageError: an operator has no rule.
    """
    analysis = analyse(program)
    elastic = Elastic(program, analysis, lay_out(analysis), find_stages(program))
    return replace(elastic, stages=tuple(_removable_stages(elastic)))


def _removable_stages(elastic: Elastic) -> Iterator[Stage]:
    """The stages without the blocks whose concatenated pieces cannot go as a whole."""
    for stage in elastic.stages:
        removable = {
            path: block
            for path, block in stage.removable.items()
            if all(elastic.is_separate(piece, block.tensors) for piece in block.pieces)
        }
        if removable:
            yield replace(stage, removable=removable)


def _dropped(stage: Stage, choice: Choice) -> list[str]:
    kept = choice.intervals(stage.name, len(stage.blocks))
    return [
        path
        for i, path in enumerate(stage.blocks)
        if path in stage.removable and not any(start <= i < stop for start, stop in kept)
    ]


def program_at(
    analysis: Analysis, stages: tuple[Stage, ...], nesting: Nesting, level: str
) -> Program:
    """A program at a level: its literal sizes rewritten, blocks that it lacks left out.

    Args:
        analysis: of the evaluation or of the training program.
        stages: of the evaluation program.
        nesting: the levels.
        level: which one.
    """
    live = _live_units(analysis, nesting, level)
    choice = nesting.choice(level)
    dropped = [path for stage in stages for path in _dropped(stage, choice)]
    return without_blocks(specialise(Survival(analysis, live)), dropped)


def _live_units(analysis: Analysis, nesting: Nesting, level: str) -> npt.NDArray[np.bool_]:
    """Which units live, read off the tensors: so that two programs agree who share them.

    Raises:
        UsageError: the program ties units of which the level keeps only some.
    """
    live = np.ones(analysis.count, dtype=bool)
    kept_units = np.zeros(analysis.count, dtype=bool)
    for tensor, dims in analysis.weights.items():
        used = nesting.uses(level, tensor)
        if used is None:
            continue
        for dim, rows in dims.items():
            for row in rows:
                kept = entries(used[dim], len(row))
                gone = row[~kept & (row != ALWAYS)]
                live[gone] = False
                kept_units[row[kept & (row != ALWAYS)]] = True
                if (kept_units & ~live).any():
                    raise UsageError(
                        f"level {level!r}: in training the network ties channels of {tensor!r} "
                        "that it does not tie in evaluation; keep them whole: a width of 1.0"
                    )
                if (~kept & (row == ALWAYS)).any():
                    raise UsageError(
                        f"level {level!r}: in training the network needs all of {tensor!r}; "
                        "keep it whole: a width of 1.0"
                    )
    return live
