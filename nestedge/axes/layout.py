"""The elastic axes of a network and the layout of its tensors, from an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nestedge.axes.analysis import ALWAYS, Analysis, Units
from nestedge.layouts import KINDS, Axis, Kind, Run, TensorLayout


@dataclass(frozen=True)
class Layout:
    """How units form axes.

    Attributes:
        axes: every axis but depths by name; the name is that of the module whose tensor has the
            axis first, with the entries in brackets where the tensor has several, and with the
            kind of other axes than widths.
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
    own, and so is the padding in front of a shortcut's channels. A kernel's rings are counted from
    within, so that the first ones of them are a smaller kernel.
    """
    signatures = _signatures(analysis)
    axis_of = np.full(analysis.count, ALWAYS, dtype=np.int64)
    index_of = np.zeros(analysis.count, dtype=np.int64)
    axes: dict[str, Axis] = {}
    for tensor, dim, row in _rows(analysis):
        for start, stop in _runs_of_equal(np.where(row == ALWAYS, ALWAYS, signatures[row])):
            if row[start] == ALWAYS or axis_of[row[start]] != ALWAYS:
                continue
            units, kind = _in_order(row[start:stop]), KINDS[analysis.kinds[row[start]]]
            span = "" if start == 0 and stop == len(row) else f"[{start}:{stop}]"
            if kind == "kernel":
                units, span = units[::-1], ""
                axis = Axis(len(units), 2, kind, base=int((row == ALWAYS).sum()))
            else:
                repeat = int(np.argmax(np.append(row[start:stop] != row[start], True)))
                axis = Axis(len(units), repeat, kind)
            axis_of[units] = len(axes)
            index_of[units] = np.arange(len(units))
            axes[_axis_name(tensor, dim, span, kind=kind, taken=axes)] = axis
    names = list(axes)
    tensors = _tensor_layouts(analysis, axis_of, index_of, names)
    return Layout(axes, tensors, tuple(names[position] for position in axis_of))


def _tensor_layouts(
    analysis: Analysis,
    axis_of: npt.NDArray[np.int64],
    index_of: npt.NDArray[np.int64],
    names: list[str],
) -> dict[str, TensorLayout]:
    layouts = {}
    for tensor, dims in analysis.weights.items():
        rank = len(analysis.program.tensors[tensor].shape)
        covers: dict[bool, list[tuple[Run, ...]]] = {False: [()] * rank, True: [()] * rank}
        for dim, rows in dims.items():
            for row in rows:
                is_inner = KINDS[analysis.kinds[row.max()]] == "head_width"
                covers[is_inner][dim] = _dim_runs(row, axis_of, index_of, names)
        inner = tuple(covers[True]) if any(covers[True]) else ()
        layouts[tensor] = TensorLayout(tuple(covers[False]), inner=inner)
    return layouts


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


def _axis_name(tensor: str, dim: int, span: str, *, kind: Kind, taken: Mapping[str, Axis]) -> str:
    module = tensor.rsplit(".", 1)[0] if "." in tensor else tensor
    suffix = "" if kind == "width" else f".{kind}"
    names = (f"{module}{span}{suffix}", f"{tensor}{span}{suffix}")
    return next((name for name in names if name not in taken), f"{tensor}.{dim}{span}{suffix}")


def _dim_runs(
    row: Units, axis_of: npt.NDArray[np.int64], index_of: npt.NDArray[np.int64], names: list[str]
) -> tuple[Run, ...]:
    """The entries of a dimension as runs: equal repeats of consecutive units of one axis."""
    starts = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    lengths = np.diff(np.append(starts, len(row)))
    units = row[starts]
    axes, indices = axis_of[units], index_of[units]
    goes_on = (units[1:] != ALWAYS) & (units[:-1] != ALWAYS) & (axes[1:] == axes[:-1])
    goes_on &= (indices[1:] == indices[:-1] + 1) & (lengths[1:] == lengths[:-1])
    runs = []
    for first, last in pairwise([0, *(np.flatnonzero(~goes_on) + 1).tolist(), len(units)]):
        start, repeat = int(indices[first]), int(lengths[first])
        if units[first] == ALWAYS:
            runs.append(Run(None, 0, repeat))
        else:
            runs.append(Run(names[axes[first]], start, start + last - first, repeat))
    return tuple(runs)
