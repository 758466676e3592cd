"""Layers of an 8-bit artifact that fall back to half precision, where 8 bits cost too much."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nestedge.artifact import DropRecord, write_artifact
from nestedge.building.cells import Draft, Level
from nestedge.errors import ConversionError, UsageError
from nestedge.images import as_batch
from nestedge.plugins import Runtime, TensorInfo, check_inputs
from nestedge.profiling.labelled import LabelledData
from nestedge.profiling.measure import check_labels, predictions
from nestedge.program.graph import run
from nestedge.program.shapes import trace_shapes
from nestedge.reasons import conversion_error

Make = Callable[[Sequence[str]], Draft]
"""Gives the artifact in which the layers of some weights are in half precision."""


@dataclass(frozen=True)
class Limit:
    """How much accuracy a level may lose.

    Attributes:
        points: percent of the samples.
        data: that it is measured on.
        right: how many of its samples the level answers rightly in single precision.
    """

    points: float
    data: LabelledData
    right: int

    def drop(self, right: int) -> float:
        """The points that so many right answers are fewer; negative where they are more."""
        return 100 * (self.right - right) / len(self.data.labels)


def find_limit(level: Level, data: LabelledData, *, points: float) -> Limit:
    """The limit of a level, whose answers in single precision are found here.

    Args:
        level: a classifier.
        data: as `nestedge.profiling.measure.predictions` takes it.
        points: that it may lose.

    Raises:
        UsageError: the level is no classifier of images, or the data is not for it.
    """
    return Limit(points, data, int((_answers(level, data) == data.labels).sum()))


def _answers(level: Level, data: LabelledData) -> npt.NDArray[np.int64]:
    """The class that a level gives for every input of a data set."""
    program, tensors = level.program.program, level.program.tensors
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise UsageError(
            f"level {level.name!r}: accuracy needs one input and one output, found "
            f"{len(program.inputs)} and {len(program.outputs)}; leave out --max-drop"
        )
    (spec,) = program.inputs
    info = TensorInfo(spec.name, spec.shape_at(1), str(spec.dtype).removeprefix("torch."))
    answers = []
    try:
        check_labels(data.labels, data.inputs, classes=_classes(level))
        for array in data.inputs:
            batch = as_batch(array, info, level.nested.card.preprocessing)
            check_inputs([info], {info.name: batch})
            with torch.no_grad():
                (scores,) = run(program, tensors, [torch.tensor(batch)])
            # A NaN would win argmax: it is no answer.
            answers.append(-1 if bool(scores.isnan().any()) else int(scores.argmax()))
    except ValueError as error:
        raise UsageError(f"--data: {error}") from error
    return np.array(answers, np.int64)


def _classes(level: Level) -> int:
    program = level.program.program
    ((_, output),) = program.outputs
    shape = tuple(trace_shapes(program, batch=1)[output.name].shape)
    if len(shape) != 2 or shape[0] != 1:
        raise UsageError(
            f"level {level.name!r}: accuracy needs an output of shape (1, classes), found {shape}; "
            "leave out --max-drop"
        )
    return int(shape[1])


def fewest(layers: int, suffices: Callable[[int], bool]) -> int | None:
    """The fewest of some layers, taken in order, that suffice; None where all of them do not.

    1, 2, 4, 8 and so on are tried, then what is between. More layers are taken to be no worse.

    >>> fewest(10, lambda count: count >= 6)
    6
    """
    failed, enough = 0, min(1, layers)
    while enough == 0 or not suffices(enough):
        if enough == layers:
            return None
        failed, enough = enough, min(2 * enough, layers)
    while enough - failed > 1:
        middle = (failed + enough) // 2
        failed, enough = (failed, middle) if suffices(middle) else (middle, enough)
    return enough


def draft_within(
    limit: Limit, make: Make, *, ranked: Callable[[], Sequence[str]], runtime: Runtime
) -> Draft:
    """The artifact that loses no more than a limit, with as few layers in half precision.

    Args:
        limit: how much it may lose.
        make: converts.
        ranked: names of the weights of the layers that may fall back, the worst first; is asked
            where one has to.
        runtime: that answers are measured in.

    Raises:
        ConversionError: it loses more, whatever falls back; the message says how much.
        UsageError: the data does not fit the artifact.
    """
    trials = _Trials(limit, make, runtime)
    if trials.suffices(()):
        return trials.best(())
    weights = tuple(ranked())
    found = fewest(len(weights), lambda count: trials.suffices(weights[:count]))
    if found is None:
        raise conversion_error("accuracy-lost", _lost(trials, len(weights)))
    return trials.best(weights[:found])


@dataclass
class _Trials:
    """The artifacts that were tried; lives for one cell.

    Attributes:
        drops: in points, by the weights in half precision.
        drafts: those that lose no more than the limit.
    """

    limit: Limit
    make: Make
    runtime: Runtime
    drops: dict[tuple[str, ...], float] = field(default_factory=dict)
    drafts: dict[tuple[str, ...], Draft] = field(default_factory=dict)

    def suffices(self, weights: tuple[str, ...]) -> bool:
        """Whether the artifact with these weights in half precision loses no more than allowed."""
        try:
            draft = self.make(weights)
        except ConversionError as error:
            # With all layers in half precision there is nothing left that has 8 bits.
            if not weights or error.diagnosis.code != "nothing-to-quantise":
                raise
            return False
        self.drops[weights] = self.limit.drop(self._right(draft))
        is_enough = self.drops[weights] <= self.limit.points
        if is_enough:
            # The fewer come later, and a model may be large.
            self.drafts = {weights: draft}
        return is_enough

    def best(self, weights: tuple[str, ...]) -> Draft:
        """One that loses no more than allowed, with the record of what it loses."""
        draft, limit = self.drafts[weights], self.limit
        record = DropRecord(
            allowed=limit.points,
            before=self.drops[()],
            after=self.drops[weights],
            exact_percent=100 * limit.right / len(limit.data.labels),
            data_sha256=limit.data.sha256,
            samples=len(limit.data.labels),
        )
        return replace(draft, description=replace(draft.description, drop=record))

    def _right(self, draft: Draft) -> int:
        with tempfile.TemporaryDirectory() as folder:
            made = write_artifact(Path(folder) / "cell", draft.description, files=draft.files)
            try:
                answers = predictions(made, self.runtime, data=self.limit.data)
            except ValueError as error:
                raise UsageError(f"--data: {error}") from error
        return int((answers == self.limit.data.labels).sum())


def _lost(trials: _Trials, layers: int) -> str:
    """How much is lost, whatever falls back."""
    allowed = f"at most {trials.limit.points:g} are allowed"
    said = f"it loses {trials.drops[()]:.2f} points of accuracy with every layer in 8 bits"
    fallen = [weights for weights in trials.drops if weights]
    if not fallen:
        return f"{said}, {allowed}, and none of the layers can fall back to half precision"
    best = min(fallen, key=lambda weights: trials.drops[weights])
    return (
        f"{said} and {trials.drops[best]:.2f} with the worst {len(best)} of {layers} in half "
        f"precision, {allowed}"
    )
