"""A network run at its full size with some entries absent: the oracle of its levels.

Every value is as large as in the full network and comes with a *presence* of the same shape. What
is combined (a sum over channels, a norm, a softmax) is combined of the entries that are present,
by formulas written here; all else is the network's own operator, run on the value, and where it
only moves entries, on the presence. Nothing is cut, and no unit, axis or tie is known here: which
entries of the weights are absent is all that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nestedge.program import operators
from nestedge.program.arguments import named_arguments
from nestedge.program.graph import Node, Program, Ref, Weight, call

ABSENT, PRESENT, FREE = 0.0, 1.0, 2.0
"""A free entry was created, padded or broadcast: it is what it meets, so of two the least counts"""


@dataclass(frozen=True)
class Value:
    """Numbers, and which of them are present; an absent one may be anything."""

    numbers: Tensor
    presence: Tensor

    @property
    def there(self) -> Tensor:
        """Which entries are not absent."""
        return self.presence != ABSENT

    def neutral(self, number: float) -> Tensor:
        """The numbers with another in place of the absent ones."""
        return torch.where(self.there, self.numbers, torch.full_like(self.numbers, number))


@dataclass
class Told:
    """What was noticed in a run.

    Attributes:
        uneven: operators that do not take zero for absent: the network with zeros is another one.
        undecided: operators that combine free entries with others: no presence is known there.
    """

    uneven: set[str] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)


Rule = Callable[[Node, Mapping[str, Any], Told], Sequence[Value]]


def least(*presences: Tensor) -> Tensor:
    """What meets is present where all of it is.

    A value of one channel meets no channel of another: it decides nothing about free ones.
    """
    found, *others = presences
    shape = np.broadcast_shapes(*(tuple(presence.shape) for presence in presences))
    found = _undeciding(found, shape)
    for other in others:
        found = torch.minimum(found, _undeciding(other, shape))
    return found


def _undeciding(presence: Tensor, shape: Sequence[int]) -> Tensor:
    lead = len(shape) - presence.dim()
    if len(shape) > 1 and shape[1] > 1 and (lead > 1 or presence.shape[1 - lead] == 1):
        presence = torch.where(presence == PRESENT, FREE, presence)
    return presence.expand(shape)


def _without_absent(presence: Tensor, *others: Tensor) -> Tensor:
    """A presence, absent where one of others is."""
    for other in others:
        presence = torch.where(other == ABSENT, ABSENT, presence)
    return presence


def whole(numbers: Tensor) -> Value:
    """A value all of which is present."""
    return Value(numbers, torch.full((), PRESENT, dtype=torch.float64).expand(numbers.shape))


def run_present(
    program: Program,
    tensors: Mapping[str, Value],
    inputs: Sequence[Tensor],
    rules: Mapping[str, Rule],
) -> tuple[tuple[Tensor, ...], Told]:
    """The outputs of a program some of whose stored entries are absent, and what was noticed.

    Raises:
        ValueError: an entry of an output is absent.
    """
    values: dict[str, Any] = {
        spec.name: whole(x) for spec, x in zip(program.inputs, inputs, strict=True)
    }
    told = Told()

    def look_up(leaf: Ref | Weight) -> Any:
        return tensors[leaf.name] if isinstance(leaf, Weight) else values[leaf.name]

    for node in program.nodes:
        if node.op in operators.SYMBOLIC:
            plain = call(node, lambda leaf: _numbers(look_up(leaf)), device=None)
            values[node.output] = plain[0]
            continue
        rule = rules.get(node.op) or GENERAL[node.op]
        results = rule(node, named_arguments(node, look_up), told)
        for name, value in zip(node.outputs, results, strict=False):
            if name is not None:
                shaped = value.presence.expand(value.numbers.shape)
                values[name] = Value(value.numbers, shaped)
    outputs = [look_up(ref) for _, ref in program.outputs]
    if not all(bool(value.there.all()) for value in outputs):
        raise ValueError("an entry of an output is absent")
    return tuple(value.numbers for value in outputs), told


def _numbers(value: Any) -> Any:
    return value.numbers if isinstance(value, Value) else value


def plainly(node: Node, a: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """What the operator itself gives on the numbers."""
    results = operators.resolve(node.op)(**{name: stripped(value) for name, value in a.items()})
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def stripped(value: Any) -> Any:
    """The numbers of a value, or of the values of a list."""
    if isinstance(value, (list, tuple)):
        return [stripped(item) for item in value]
    return _numbers(value)


def operands(a: Mapping[str, Any]) -> list[Value]:
    """The arguments that are tensors, in order."""
    return [value for value in a.values() if isinstance(value, Value)]


def _unary(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    return [Value(plainly(node, a)[0], operands(a)[0].presence)]


def _join(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    return [Value(plainly(node, a)[0], least(*(value.presence for value in operands(a))))]


def _moved(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Entries are moved: so is their presence, by the same operator."""
    first = next(iter(a))
    presence = plainly(node, {**a, first: a[first].presence.clone()})
    numbers = plainly(node, a)
    if "other" in a:
        presence = (least(presence[0], a["other"].presence),)
    if node.op == "aten.expand.default":
        presence = (_freed(presence[0], a["self"].numbers.shape),)
    return [Value(n, p) for n, p in zip(numbers, presence, strict=True)]


def _freed(presence: Tensor, shape: Sequence[int]) -> Tensor:
    """Entries that an expansion adds are free, but for what is absent of the expanded one."""
    lead = presence.dim() - len(shape)
    grown = [
        d for d, n in enumerate(presence.shape) if n > 1 and (d < lead or shape[d - lead] == 1)
    ]
    if not grown:
        return presence
    return torch.where(presence == PRESENT, torch.full_like(presence, FREE), presence)


def _cat(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Along its dimension parts stand side by side; elsewhere they meet."""
    (numbers,) = plainly(node, a)
    parts = [part.presence for part in a["tensors"] if part.numbers.shape != (0,)]
    dim = a["dim"] % numbers.dim()
    if node.op.startswith("aten.stack"):
        parts = [part.unsqueeze(dim) for part in parts]
    across = [part.amax(dim, keepdim=True) for part in parts if bool((part != ABSENT).any())]
    return [Value(numbers, _without_absent(torch.cat(parts, dim), *across))]


def _pad(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    (numbers,), presence = plainly(node, a), a["self"].presence
    if a["mode"] != "constant":
        (moved,) = plainly(node, {**a, "self": presence.contiguous()})
        return [Value(numbers, moved)]
    (moved,) = plainly(node, {**a, "self": presence, "value": FREE})
    dims = [presence.dim() - 1 - i for i in range(len(a["pad"]) // 2) if any(a["pad"][2 * i :][:2])]
    return [Value(numbers, _without_absent(moved, presence.amax(dims, keepdim=True)))]


def _created(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    given = {name: value for name, value in a.items() if name != "device"}
    (numbers,) = plainly(node, given)
    counted = node.op.split(".")[1] in ("arange", "linspace", "scalar_tensor")
    return [Value(numbers, torch.full_like(numbers, PRESENT if counted else FREE))]


def _rows(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Entries by index: those of the table, as far as the index itself is present."""
    first = "weight" if "weight" in a else "self"
    (numbers,) = plainly(node, a)
    (presence,) = plainly(node, {**a, first: a[first].presence.clone()})
    given = (
        a["indices"] if isinstance(a.get("indices"), list) else [a.get("indices", a.get("index"))]
    )
    dims = [dim for dim, one in enumerate(given) if one is not None]
    start = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    if "dim" in a:
        start = a["dim"] % numbers.dim()
    for one in given:
        if one is not None:
            rest = [1] * (numbers.dim() - start - one.numbers.dim())
            presence = least(presence, one.presence.reshape(*one.presence.shape, *rest))
    return [Value(numbers, presence)]


def _scattered(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    given = {**a, "self": a["self"].presence.clone(), "src": a["src"].presence}
    return [Value(plainly(node, a)[0], plainly(node, given)[0])]


def _resampled(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Resampled positions, every one of which is present where its channel is."""
    first = "input" if "input" in a else "self"
    presence, found = a[first].presence, plainly(node, a)
    dims = list(range(2, presence.dim()))
    presence = presence.amin(dims, keepdim=True)
    return [Value(numbers, presence.expand(*numbers.shape)) for numbers in found]


def _patches(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    (numbers,), presence = plainly(node, a), a["self"].presence.amin((2, 3))
    each = numbers.shape[1] // presence.shape[1]
    return [Value(numbers, presence.repeat_interleave(each, 1).unsqueeze(2))]


def _meshed(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    numbers = plainly(node, a)
    found = plainly(node, {**a, "tensors": [v.presence.clone() for v in a["tensors"]]})
    return [Value(value, least(*found)) for value in numbers]


def _looked_up(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Entries of rows that every level has whole: present where the rest of the row is."""
    given = [value.presence.amin(a["dim"], keepdim=True) for value in operands(a)]
    return [Value(numbers, least(*given).expand(*numbers.shape)) for numbers in plainly(node, a)]


def _gathered(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    """Entries of rows that every level has whole: as many as there are indices."""
    rows = a["self"].presence.amin(a["dim"], keepdim=True)
    return [Value(plainly(node, a)[0], least(rows, a["index"].presence))]


def _outer(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    one, other = operands(a)
    return [Value(plainly(node, a)[0], least(one.presence[:, None], other.presence[None, :]))]


def _folded(node: Node, a: Mapping[str, Any], _: Told) -> Sequence[Value]:
    (numbers,), presence = plainly(node, a), a["self"].presence.amin(2)
    by_channel = presence.reshape(*numbers.shape[:2], -1).amin(2)
    return [Value(numbers, by_channel[:, :, None, None])]


def _of(names: str) -> frozenset[str]:
    return frozenset(f"aten.{n}" if "." in n else f"aten.{n}.default" for n in names.split())


GENERAL: dict[str, Rule] = {
    **dict.fromkeys(operators.MOVEMENT, _moved),
    **dict.fromkeys(operators.UNARY, _unary),
    **dict.fromkeys(operators.JOIN, _join),
    **dict.fromkeys(_of("cat stack"), _cat),
    **dict.fromkeys(_of("pad"), _pad),
    **dict.fromkeys(operators.CREATION, _created),
    **dict.fromkeys(_of("embedding index_select index.Tensor"), _rows),
    **dict.fromkeys(_of("slice_scatter select_scatter"), _scattered),
    **dict.fromkeys(operators.SPATIAL, _resampled),
    **dict.fromkeys(_of("grid_sampler"), _resampled),
    **dict.fromkeys(_of("im2col"), _patches),
    **dict.fromkeys(_of("col2im"), _folded),
    **dict.fromkeys(operators.SCATTER | operators.ORDER | _of("diff"), _looked_up),
    "aten.gather.default": _gathered,
    **dict.fromkeys(_of("outer"), _outer),
    **dict.fromkeys(_of("meshgrid meshgrid.indexing"), _meshed),
}
"""How every operator that combines nothing is run."""
