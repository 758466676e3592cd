"""The elastic axes of a network and the layout of its tensors, from an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nestedge.axes.analysis import ALWAYS, Analysis, Units
from nestedge.nesting import Axis, Run, TensorLayout


@dataclass(frozen=True)
class Layout:
    """How units form axes.

    Attributes:
        axes: every width axis by name; the name is that of the module whose tensor has the axis
            first, with the entries in brackets where the tensor has several.
        tensors: the layout of every tensor.
        axis_of: for every unit the name of its axis, in the order of units.
    """

    axes: Mapping[str, Axis]
    tensors: Mapping[str, TensorLayout]
    axis_of: tuple[str, ...]


def lay_out(analysis: Analysis) -> Layout:
    """Group units into axes.

    Units are of one axis when they stand in the same tensors, values and dimensions, equally
    often, and next to each other where they first do: so a concatenation's parts are axes of their
    own, and so is the padding in front of a shortcut's channels.
    """
    signatures = _signatures(analysis)
    axis_of = np.full(analysis.count, ALWAYS, dtype=np.int64)
    index_of = np.zeros(analysis.count, dtype=np.int64)
    axes: dict[str, Axis] = {}
    for tensor, dim, row in _rows(analysis):
        for start, stop in _runs_of_equal(np.where(row == ALWAYS, ALWAYS, signatures[row])):
            if row[start] == ALWAYS or axis_of[row[start]] != ALWAYS:
                continue
            units = _in_order(row[start:stop])
            whole = start == 0 and stop == len(row)
            name = _axis_name(tensor, dim, (start, stop), whole=whole, taken=axes)
            repeat = int(np.argmax(np.append(row[start:stop] != row[start], True)))
            axis_of[units] = len(axes)
            index_of[units] = np.arange(len(units))
            axes[name] = Axis(size=len(units), unit=repeat)
    names = list(axes)
    tensors = _tensor_layouts(analysis, axis_of, index_of, names)
    return Layout(axes, tensors, tuple(names[position] for position in axis_of))


def _tensor_layouts(
    analysis: Analysis,
    axis_of: npt.NDArray[np.int64],
    index_of: npt.NDArray[np.int64],
    names: list[str],
) -> dict[str, TensorLayout]:
    return {
        tensor: TensorLayout(
            tuple(
                _dim_runs(dims[dim][0], axis_of, index_of, names) if dim in dims else ()
                for dim in range(len(analysis.program.tensors[tensor].shape))
            )
        )
        for tensor, dims in analysis.weights.items()
    }


def _rows(analysis: Analysis) -> Iterator[tuple[str, int, Units]]:
    """Every elastic dimension of every tensor, outermost first."""
    for tensor, dims in analysis.weights.items():
        for dim in sorted(dims):
            for row in dims[dim]:
                yield tensor, dim, row


def _signatures(analysis: Analysis) -> npt.NDArray[np.int64]:
    """A hash for every unit of the dimensions it stands in, each as often as it does.

    Those of values count as well: the parts of a split are axes of their own although one tensor
    makes them both, or a level could lose a part as a whole.
    """
    signatures = np.zeros(analysis.count, dtype=np.uint64)
    rng = np.random.default_rng(0)
    values = [row for dims in analysis.values.values() for rows in dims.values() for row in rows]
    for row in [*(row for _, _, row in _rows(analysis)), *values]:
        code = rng.integers(1, 2**63, dtype=np.uint64)
        counts = np.bincount(row[row != ALWAYS], minlength=analysis.count)
        signatures += counts.astype(np.uint64) * np.uint64(code)
    return signatures.view(np.int64)


def _runs_of_equal(row: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(row)) + 1
    yield from pairwise([0, *edges.tolist(), len(row)])


def _in_order(row: Units) -> Units:
    unique, first = np.unique(row, return_index=True)
    ordered: Units = unique[np.argsort(first)]
    return ordered


def _axis_name(
    tensor: str, dim: int, entries: tuple[int, int], *, whole: bool, taken: Mapping[str, Axis]
) -> str:
    module = tensor.rsplit(".", 1)[0] if "." in tensor else tensor
    span = f"[{entries[0]}:{entries[1]}]"
    names = (module if whole else f"{module}{span}", f"{tensor}{span}")
    return next((name for name in names if name not in taken), f"{tensor}.{dim}{span}")


def _dim_runs(
    row: Units, axis_of: npt.NDArray[np.int64], index_of: npt.NDArray[np.int64], names: list[str]
) -> tuple[Run, ...]:
    """The entries of a dimension as runs: equal repeats of consecutive units of one axis."""
    starts = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    lengths = np.diff(np.append(starts, len(row)))
    runs: list[Run] = []
    for unit, length in zip(row[starts].tolist(), lengths.tolist(), strict=True):
        if unit == ALWAYS:
            runs.append(Run(None, 0, length))
            continue
        name, index = names[axis_of[unit]], int(index_of[unit])
        last = runs[-1] if runs else None
        if last and last.axis == name and last.stop == index and last.repeat == length:
            runs[-1] = Run(name, last.start, index + 1, length)
        else:
            runs.append(Run(name, index, index + 1, length))
    return tuple(runs)
