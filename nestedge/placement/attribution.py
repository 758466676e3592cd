"""Joins what a log calls things with the operators of a file, so that their MACs are known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nestedge.placement.description import Operator, Placed

_FOREIGN = re.compile(r"\{ForeignNode\[(?P<first>.*?)(?:\.\.\.(?P<last>.*?))?\]\}")


@dataclass(frozen=True)
class Entry:
    """One thing that a log says runs somewhere: a layer of TensorRT, a node of onnxruntime.

    Attributes:
        kind: as the log calls it; empty where it does not.
        text: the names of the operators in it, between others; or the first and the last of many,
            as in "{ForeignNode[Conv_0...Relu_9]}".
        where: it runs.
    """

    kind: str
    text: str
    where: str


def attributed(
    operators: Sequence[Operator], entries: Sequence[Entry], *, rest: str | None = None
) -> tuple[Placed, ...] | None:
    """Where the operators of a file run, by the entries of a log.

    An operator that an entry names runs there; one between the first and the last of a piece that
    is compiled as a whole runs there unless another entry names it. An operator without MACs that
    is nowhere was folded into another, and is left out.

    Args:
        operators: in the order of the file.
        entries: of the log.
        rest: where operators run that no entry names, if they all run in one place.

    Returns:
        None where an operator that has MACs, or may have some, cannot be found.
    """
    named = _named(operators, entries)
    spans = _spans(operators, entries)
    placed = []
    for index, operator in enumerate(operators):
        # The smallest piece around it: a piece may lie in the middle of another's.
        around = min((span for span in spans if span[1] <= index <= span[2]), default=None)
        where = named.get(operator.name) or (around[3] if around else rest)
        if where is not None:
            placed.append(Placed(operator.kind, operator.name, where, operator.macs))
        elif operator.macs != 0:
            return None
    return tuple(placed)


def listed(entries: Sequence[Entry]) -> tuple[Placed, ...]:
    """The entries themselves, where the operators in them are not known."""
    return tuple(Placed(entry.kind or "layer", entry.text, entry.where, None) for entry in entries)


def _named(operators: Sequence[Operator], entries: Sequence[Entry]) -> Mapping[str, str]:
    """Where the operators run that entries name one by one."""
    wheres = {}
    names = {operator.name for operator in operators if operator.name}
    whole = {entry.text: entry.where for entry in entries}
    wheres.update({name: whole[name] for name in names & whole.keys()})
    texts = [(_FOREIGN.sub(_single, entry.text), entry.where) for entry in entries]
    for name in names - whole.keys():
        # A name stands alone: "reshape_after_/fc/Gemm" is not "/fc/Gemm".
        pattern = re.compile(rf"(?<![\w./:]){re.escape(name)}(?![\w.:])")
        for text, where in texts:
            if name in text and pattern.search(text):
                wheres[name] = where
                break
    return wheres


def _single(match: re.Match[str]) -> str:
    """The text of a piece: its name if it has one operator, nothing of one with many."""
    return "" if match["last"] else f" {match['first']} "


def _spans(
    operators: Sequence[Operator], entries: Sequence[Entry]
) -> list[tuple[int, int, int, str]]:
    """Length, first and last operator and place of every piece of many operators."""
    indices = {operator.name: index for index, operator in enumerate(operators)}
    spans = []
    for entry in entries:
        for match in _FOREIGN.finditer(entry.text):
            first, last = indices.get(match["first"]), indices.get(match["last"])
            if first is not None and last is not None:
                spans.append((last - first, first, last, entry.where))
    return spans
