"""How many operators a TFLite delegate took, by what the interpreter logs when it is applied.

The log says how many, and which kinds the GPU delegate lacks, but not which operators are left. It
is exact where everything is taken, or where the operators left are all those of these kinds;
otherwise the share is one of operators, not of MACs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nestedge.errors import FormatError, UsageError
from nestedge.placement.description import Operator, Placed, Placement, unnamed

PROCESSOR = "CPU"
NAMES = {
    "TfLiteXNNPackDelegate": "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteGpuDelegate": "GPU",
    "TfLiteMetalDelegate": "Metal",
}
"""What we call the delegates that call themselves so; others keep their names."""

_REPLACING = re.compile(
    r"Replacing (?P<taken>\d+)(?: out of (?P<all>\d+))? node\(s\) with delegate "
    r"\((?P<name>[\w ]+)\) node, yielding (?P<subsets>\d+) partitions"
)
_BEGUN = re.compile(r"Replacing \d+(?: out of \d+)? node\(s\) with delegate")
_UNDONE = "Restored original execution plan after delegate application failure"
_SPLIT = re.compile(
    r"(?:First )?(?P<taken>\d+) operations will run on the GPU, and the remaining (?P<left>\d+) o"
)
_REFUSED = re.compile(r"No operations will run on the GPU, and all (?P<left>\d+) operations")
_LACKING = re.compile(r"(?:Following|Next) operations are not supported by GPU delegate:")
_LACKED = re.compile(r"(?:^|[\s:])(?P<kind>[A-Z][A-Z0-9_]+):(?: |$)")


@dataclass(frozen=True)
class _Taken:
    """What a delegate took.

    Attributes:
        name: of the delegate.
        taken: how many operators it took.
        every: how many there are; None where the log is of a version that does not say.
        subsets: pieces of the network, those that it did not take included; None where the log
            does not say.
    """

    name: str
    taken: int
    every: int | None
    subsets: int | None

    @property
    def partitions(self) -> int | None:
        """How many of the pieces it took, or None where the log leaves that open."""
        if self.taken == 0:
            return 0
        if self.taken == self.every or self.subsets is None:
            return self.subsets
        # Pieces of the two sorts follow each other; of an odd number either may be one more.
        return self.subsets // 2 if self.subsets % 2 == 0 else None


def is_log(text: str) -> bool:
    """Whether a text tells of a delegate that was applied."""
    return any(pattern.search(text) for pattern in (_BEGUN, _SPLIT, _REFUSED, _LACKING))


def read(
    text: str, operators: Sequence[Operator], *, source: str, accelerator: str | None
) -> Placement:
    """Where operators run: on a delegate, or on the processor.

    Without `accelerator` that is the first delegate in the log.

    Raises:
        FormatError: the log is truncated, or of a model with another number of operators.
        UsageError: the delegate asked for is not in the log.
    """
    found = _chosen(_taken(text, source=source), accelerator, source=source)
    every = len(operators) if found.every is None else found.every
    if found.taken > every or (operators and every != len(operators)):
        raise FormatError(
            f"{source}: {found.name} took {found.taken} of {every} operators; the model has "
            f"{len(operators)}: the log is of another model"
        )
    placed = _placed(found, operators, lacking(text))
    if placed is None:
        placed = unnamed({found.name: found.taken, PROCESSOR: every - found.taken})
    return Placement(found.name, placed, found.partitions, source)


def lacking(text: str) -> tuple[str, ...]:
    """The kinds of operators that the GPU delegate says it does not take, sorted."""
    kinds: set[str] = set()
    for match in _LACKING.finditer(text):
        for line in text[match.end() :].splitlines()[1:]:
            found = _LACKED.search(line)
            if found is None:
                break
            kinds.add(found["kind"])
    return tuple(sorted(kinds))


def _placed(
    found: _Taken, operators: Sequence[Operator], kinds: Sequence[str]
) -> tuple[Placed, ...] | None:
    """Where each operator runs, or None where the log leaves it open."""
    left = [operator.kind in kinds for operator in operators]
    if not operators or found.taken not in (0, len(operators), left.count(False)):
        return None
    if found.taken in (0, len(operators)):
        left = [found.taken == 0] * len(operators)
    return tuple(
        Placed(op.kind, op.name, PROCESSOR if is_left else found.name, op.macs)
        for op, is_left in zip(operators, left, strict=True)
    )


def _taken(text: str, *, source: str) -> list[_Taken]:
    """What each delegate in a log took, in its order."""
    matches = list(_REPLACING.finditer(text))
    if len(matches) < len(_BEGUN.findall(text)):
        raise FormatError(
            f"{source}: a line 'Replacing ... node(s) with delegate' is cut off: give the whole log"
        )
    found = []
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, until in zip(matches, ends, strict=False):
        # A delegate that fails after it was applied leaves everything to the processor.
        is_undone = _UNDONE in text[match.end() : until]
        name = NAMES.get(match["name"], match["name"])
        every = None if match["all"] is None else int(match["all"])
        taken = 0 if is_undone else int(match["taken"])
        found.append(_Taken(name, taken, every, int(match["subsets"])))
    return found or [_announced(text, source=source)]


def _announced(text: str, *, source: str) -> _Taken:
    """What the GPU delegate says it could take, in a log that ends before it is applied."""
    split, refused = _SPLIT.search(text), _REFUSED.search(text)
    if refused is not None:
        return _Taken("GPU", 0, int(refused["left"]), None)
    if split is None:
        raise FormatError(
            f"{source}: names operators that the GPU delegate lacks, but not how many it took: "
            "give the whole log"
        )
    taken = int(split["taken"])
    return _Taken("GPU", taken, taken + int(split["left"]), None)


def _chosen(found: Sequence[_Taken], asked: str | None, *, source: str) -> _Taken:
    for each in found:
        if asked in (None, each.name):
            return each
    known = ", ".join(dict.fromkeys(each.name for each in found))
    raise UsageError(f"{source}: no delegate {asked!r}; the log has {known}")
