"""What is elastic about a network, and its program at a level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nestedge.axes.analysis import ALWAYS, Analysis, Units, analyse
from nestedge.axes.blocks import Stage, find_stages, without_blocks
from nestedge.axes.layout import Layout, lay_out
from nestedge.axes.outputs import add_outputs, given_outputs, with_outputs
from nestedge.axes.parallel import Group, find_branches, without_branches
from nestedge.axes.rewrite import Survival, specialise
from nestedge.errors import UsageError
from nestedge.intervals import entries
from nestedge.layouts import Axis, Run, TensorLayout
from nestedge.levels import Level, choose, chosen_outputs
from nestedge.nesting import Choice, Nesting
from nestedge.program.graph import Program, Ref

_Row = TypeVar("_Row", Stage, Group)


@dataclass(frozen=True)
class Elastic:
    """One network: its program, its axes, and the modules that a level may leave out.

    Attributes:
        program: the network.
        analysis: its units.
        layout: its axes and those of its tensors.
        stages: rows of residual blocks.
        groups: modules side by side.
        outputs: the name of the axis of outputs.
    """

    program: Program
    analysis: Analysis
    layout: Layout
    stages: tuple[Stage, ...]
    groups: tuple[Group, ...] = ()
    outputs: str = "outputs"

    @property
    def rows(self) -> tuple[Stage | Group, ...]:
        """The stages and the groups."""
        return (*self.stages, *self.groups)

    def nesting(self) -> Nesting:
        """The axes and tensors of the network, with no level yet."""
        depths = {stage.name: Axis(len(stage.blocks), kind="depth") for stage in self.stages}
        branches = {g.name: Axis(len(g.branches), kind="branches") for g in self.groups}
        requires: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for row in self.rows:
            for unit, path in enumerate(_paths(row)):
                for tensor in row.removable[path].tensors if path in row.removable else ():
                    requires[tensor].append((row.name, unit))
        tensors = {
            name: replace(layout, requires=tuple(requires.get(name, ())))
            for name, layout in self._all_tensors().items()
        }
        nesting = Nesting({**self.layout.axes, **depths, **branches}, tensors)
        return add_outputs(nesting, self.program, axis=self.outputs)

    def _all_tensors(self) -> dict[str, TensorLayout]:
        whole = {n: TensorLayout(((),) * len(s.shape)) for n, s in self.program.tensors.items()}
        return {**whole, **self.layout.tensors}

    def choose(self, level: Level, name: str, axes: Mapping[str, Axis], *, divisor: int) -> Choice:
        """The units that a level keeps; what a dropped module concatenates goes with it.

        Raises:
            UsageError: as `levels.choose` says; a list leaves out a module that has to stay.
        """
        choice = choose(level, name, axes, divisor=divisor)
        kept = dict(choice.kept)
        names = [output for output, _ in self.program.outputs]
        outputs = chosen_outputs(level, name, names)
        if outputs != ((0, len(names)),):
            kept[self.outputs] = outputs
        for row in self.rows:
            _check_stuck(row, choice, name)
            for path in _dropped(row, choice):
                for piece in row.removable[path].pieces:
                    kept.update(dict.fromkeys(self._axes_of(piece), ()))
        return Choice(kept)

    def is_separate(self, value: str, own: Collection[str]) -> bool:
        """Whether all units of a value may go, and leave no tensor but the `own` ones empty."""
        axes = self._axes_of(value)
        rows = [row for rows in self.analysis.of(Ref(value)).values() for row in rows]
        can_go = [row for row in rows if (row != ALWAYS).all()]
        return any(self.layout.axis_of[row[0]] in axes for row in can_go) and not any(
            runs and all(run.axis in axes for run in runs)
            for tensor, layout in self.layout.tensors.items()
            if tensor not in own
            for runs in layout.dims
        )

    def _axes_of(self, value: str) -> set[str]:
        """The axes whose units a value has, those of places in heads aside: these stay."""
        rows = [row for rows in self.analysis.of(Ref(value)).values() for row in rows]
        names = {self.layout.axis_of[unit] for row in rows for unit in row if unit != ALWAYS}
        return {name for name in names if self.layout.axes[name].kind == "width"}


def study(program: Program) -> Elastic:
    """Find what is elastic about a program.

    Raises:
        UsageError: an operator has no rule.
    """
    analysis = analyse(program)
    stages = find_stages(program)
    elastic = Elastic(program, analysis, lay_out(analysis), stages)
    groups = [_removable(group, elastic) for group in find_branches(program, stages)]
    stages = tuple(stage for stage in (_removable(s, elastic) for s in stages) if stage.removable)
    # A block with weights of its own may be what a width is called by already.
    taken = set(elastic.layout.axes)
    stages = tuple(replace(s, name=_free(s.name, taken, suffix="blocks")) for s in stages)
    groups = [
        replace(g, name=_free(g.name, taken, suffix="branches")) for g in groups if g.removable
    ]
    outputs = _free("outputs", taken, suffix="axis")
    return replace(elastic, stages=stages, groups=tuple(groups), outputs=outputs)


def _removable(row: _Row, elastic: Elastic) -> _Row:
    """A row without the modules whose concatenated pieces cannot go as a whole."""
    removable = {
        path: module
        for path, module in row.removable.items()
        if all(elastic.is_separate(piece, module.tensors) for piece in module.pieces)
    }
    return replace(row, removable=removable)


def _free(name: str, taken: set[str], *, suffix: str) -> str:
    """A name that no axis has yet, which is then taken."""
    names = (f"{name}.{suffix}{number}" for number in count(2))
    found = next(n for n in chain((name, f"{name}.{suffix}"), names) if n not in taken)
    taken.add(found)
    return found


def _paths(row: Stage | Group) -> tuple[str, ...]:
    return row.blocks if isinstance(row, Stage) else row.branches


def _unlisted(row: Stage | Group, choice: Choice) -> list[str]:
    """The modules that a level does not ask for."""
    paths = _paths(row)
    kept = entries(choice.intervals(row.name, len(paths)), len(paths))
    return [path for path, is_kept in zip(paths, kept, strict=True) if not is_kept]


def _dropped(row: Stage | Group, choice: Choice) -> list[str]:
    return [path for path in _unlisted(row, choice) if path in row.removable]


def _check_stuck(row: Stage | Group, choice: Choice, level: str) -> None:
    """Check that a list of modules has those that cannot go; a number of modules has them all."""
    (first, *others) = choice.intervals(row.name, len(_paths(row)))
    is_number = not others and first[0] == 0
    stuck = [path for path in _unlisted(row, choice) if path not in row.removable]
    if stuck and not is_number:
        raise UsageError(_stuck(row, stuck[0], level))


def _stuck(row: Stage | Group, path: str, level: str) -> str:
    if isinstance(row, Stage):
        return (
            f"level {level!r}, stage {row.name!r}: {path!r} has to stay: what leaves it is "
            "not what enters it with something added"
        )
    return (
        f"level {level!r}, branches {row.name!r}: {path!r} has to stay: without what it gives the "
        "others do not have the shape, or the channels, that the network needs"
    )


def program_at(analysis: Analysis, elastic: Elastic, nesting: Nesting, level: str) -> Program:
    """A program at a level: its literal sizes rewritten, modules that it lacks left out.

    Args:
        analysis: of the evaluation or of the training program.
        elastic: of the evaluation program.
        nesting: the levels.
        level: which one.

    Raises:
        UsageError: in training, the network ties or reads what the level has to leave out.
    """
    live = _live_units(analysis, nesting, level)
    choice = nesting.choice(level)
    blocks = [path for stage in elastic.stages for path in _dropped(stage, choice)]
    branches = [path for group in elastic.groups for path in _dropped(group, choice)]
    program = without_blocks(specialise(Survival(analysis, live)), blocks)
    program = without_branches(program, branches)
    names = [name for name, _ in elastic.program.outputs]
    given = given_outputs(program, nesting, level, axis=elastic.outputs, names=names)
    return with_outputs(program, given)


def _live_units(analysis: Analysis, nesting: Nesting, level: str) -> npt.NDArray[np.bool_]:
    """Which units live, read off the tensors: so that two programs agree who share them.

    Raises:
        UsageError: the program ties units of which the level keeps only some.
    """
    met, live = (np.zeros(analysis.count, dtype=bool) for _ in range(2))
    found: list[tuple[str, tuple[Units, ...], npt.NDArray[np.bool_]]] = []
    for tensor, dims in analysis.weights.items():
        used = nesting.uses(level, tensor)
        if used is None:
            # What a module concatenates goes with it, although no tensor that is left may read it.
            for dim, rows in dims.items():
                gone = _absent(nesting.tensors[tensor].dims[dim], nesting.choice(level))
                for row in rows:
                    units = row[gone]
                    met[units[units != ALWAYS]] = True
            continue
        for dim, rows in dims.items():
            kept = entries(used[dim], len(rows[0]))
            found.append((tensor, rows, kept))
            for row in rows:
                met[row[row != ALWAYS]] = True
                live[row[kept & (row != ALWAYS)]] = True
    live |= ~met
    for tensor, rows, kept in found:
        lives = np.all([(row == ALWAYS) | live[row] for row in rows], axis=0)
        if (lives == kept).all():
            continue
        if any((row[~kept & lives] != ALWAYS).any() for row in rows):
            raise UsageError(
                f"level {level!r}: in training the network ties channels of {tensor!r} "
                "that it does not tie in evaluation; keep them whole: a width of 1.0"
            )
        raise UsageError(
            f"level {level!r}: in training the network needs all of {tensor!r}; "
            "keep it whole: a width of 1.0"
        )
    return live


def _absent(runs: tuple[Run, ...], choice: Choice) -> list[int]:
    """The entries of a dimension whose axes a level lacks as a whole."""
    axes = [run.axis for run in runs for _ in range(run.entries)]
    return [i for i, axis in enumerate(axes) if axis is not None and choice.kept.get(axis) == ()]
