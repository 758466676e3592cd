"""Which execution provider runs which node, by what onnxruntime logs at its verbose level."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nestedge.errors import FormatError, UsageError, did_you_mean
from nestedge.placement.attribution import Entry, attributed, listed
from nestedge.placement.description import Operator, Placed, Placement, unnamed

CPU = "CPUExecutionProvider"
_ALL = re.compile(r"All nodes placed on \[(?P<provider>\w+)\]\. Number of nodes: (?P<count>\d+)")
_SOME = re.compile(r"Node\(s\) placed on \[(?P<provider>\w+)\]\. Number of nodes: (?P<count>\d+)")
_NODE = re.compile(r"\]\s+(?P<kind>\S+) \((?P<name>.*)\)\s*$")
_START = "Node placements"
# The function that logs the list; lines of other threads may stand between its own.
_FUNCTION = "VerifyEachNodeIsAssignedToAnEp"


def is_log(text: str) -> bool:
    """Whether a text has a session's list of nodes, or the start of it."""
    return _ALL.search(text) is not None or _SOME.search(text) is not None


def read(
    text: str, operators: Sequence[Operator], *, source: str, accelerator: str | None
) -> Placement:
    """The provider of every node of the last session in a log.

    Without `accelerator` that is the only provider beside the CPU's, or the CPU's if it is alone.

    Raises:
        FormatError: the log ends within the list.
        UsageError: there are several providers beside the CPU's, or not the one asked for.
    """
    # A log of several sessions has several lists; each begins with this line.
    text = text[max(text.rfind(_START), 0) :]
    alone = _ALL.search(text)
    if alone is not None:
        name, count = alone["provider"], int(alone["count"])
        asked = _chosen([name], accelerator, source=source)
        everything = tuple(Placed(op.kind, op.name, name, op.macs) for op in operators)
        return Placement(asked, everything or unnamed({name: count}), None, source)
    entries, providers = _entries(text, source=source)
    asked = _chosen(providers, accelerator, source=source)
    others = [name for name in providers if name != CPU]
    # What a provider compiles is one node with a name of its own; if it is the only one that
    # compiles, all that the log does not name is in there.
    is_rest_known = others == [asked] and not _renamed(operators, entries)
    placed = attributed(operators, entries, rest=asked if is_rest_known else None)
    return Placement(asked, placed or listed(entries), None, source)


def _renamed(operators: Sequence[Operator], entries: Sequence[Entry]) -> bool:
    """Whether the CPU runs a node of a costly kind that has none of the file's names."""
    kinds = {operator.kind for operator in operators if operator.macs != 0}
    names = [operator.name for operator in operators if operator.name]
    return any(
        entry.where == CPU
        # "FusedConv" and "QLinearConv" are "Conv".
        and any(kind in entry.kind for kind in kinds)
        and not any(name in entry.text for name in names)
        for entry in entries
    )


def _chosen(providers: Sequence[str], asked: str | None, *, source: str) -> str:
    others = [name for name in providers if name != CPU] or list(providers)
    if asked is None and len(others) > 1:
        raise UsageError(
            f"{source}: nodes run on {', '.join(others)}: say by --accelerator which is meant"
        )
    if asked is not None and asked not in providers:
        raise UsageError(
            f"{source}: no node runs on {asked!r}; there are {', '.join(providers)}"
            f"{did_you_mean(asked, providers)}"
        )
    return asked or others[0]


def _entries(text: str, *, source: str) -> tuple[list[Entry], list[str]]:
    """The nodes of a list by provider, and the providers."""
    entries: list[Entry] = []
    providers: list[str] = []
    lines = iter([line for line in text.splitlines() if _FUNCTION in line])
    for line in lines:
        match = _SOME.search(line)
        if match is None:
            continue
        providers.append(match["provider"])
        for number in range(int(match["count"])):
            node = _NODE.search(next(lines, ""))
            if node is None:
                raise FormatError(
                    f"{source}: {match['provider']} has {match['count']} nodes, but the log names "
                    f"{number}: give the whole log"
                )
            entries.append(Entry(node["kind"], node["name"], match["provider"]))
    if len(providers) < 2:
        # A session of one provider is logged in other words.
        raise FormatError(
            f"{source}: names the nodes of {', '.join(providers)}; expected another provider after "
            "them: give the whole log"
        )
    return entries, providers
