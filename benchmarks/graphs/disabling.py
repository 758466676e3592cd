"""The rule of one operator after another broken, and the random networks that notice.

A rule is broken in three ways, one after another until a network notices. *fresh*: what the
operator gives is tied to nothing. *untied*: the rule is followed, but what it ties is forgotten.
*frozen*: nothing of what it gives may go. A rewrite of literal sizes is left out. And without its
rule an operator is refused by name.

What notices is a property of `checks`; or, where a broken rule is only too careful, a level
that is no longer its narrower twin, or a network of fewer axes than were recorded.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from unittest import mock

from benchmarks.graphs.checks import check_levels
from benchmarks.graphs.descriptions import describe
from benchmarks.graphs.networks import build, images
from benchmarks.graphs.subjects import Record, Subject
from nestedge.axes import rewrite
from nestedge.axes.analysis import analyse
from nestedge.axes.call import Call
from nestedge.axes.rules import RULES, Rule
from nestedge.axes.tags import Tags
from nestedge.card import Card
from nestedge.elastic import study
from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.program.capture import capture
from nestedge.program.reading import Capture

_FORK = multiprocessing.get_context("fork")

TRIES = 8
"""How many networks, the smallest first, are tried with one broken rule."""


def fresh(_: Rule) -> Rule:
    """Tags of the right shape that are tied to nothing."""
    return lambda call: [call.ties.weight(shape) for shape in call.out]


def untied(rule: Rule) -> Rule:
    """What a rule gives, without what it ties."""

    def broken(call: Call) -> Sequence[Tags]:
        ties = copy.deepcopy(call.ties)
        found = rule(Call(call.op, call.a, call.out, ties))
        call.ties.count = ties.count
        return found

    return broken


def frozen(_: Rule) -> Rule:
    """Tags of which nothing may go."""
    return lambda call: [Tags(tuple(shape)) for shape in call.out]


MUTATIONS: dict[str, Callable[[Rule], Rule]] = {"fresh": fresh, "untied": untied, "frozen": frozen}


@dataclass(frozen=True)
class Noticed:
    """What became of one broken rule.

    Attributes:
        how: it was broken; "none" where no network noticed.
        seed: of the network that noticed.
        what: was noticed.
        tried: how many networks were run, all ways of breaking together.
    """

    how: str
    seed: int | None
    what: str
    tried: int


@lru_cache(maxsize=64)
def _captured(seed: int) -> Capture:
    description = describe(seed)
    return capture(build(description), (images(description),))


def _record(seed: int) -> Record:
    """The record of a network, checked as far as a broken rule can matter."""
    description, captured = describe(seed), _captured(seed)
    nested = NestedModel(
        study(captured.program),
        {name: tensor.detach().clone() for name, tensor in captured.tensors.items()},
        examples=captured.examples,
        card=Card(divisor=1),
        aliases=captured.aliases,
    )
    return check_levels(Subject(description, build(description), images(description), nested))


def _difference(known: Record, broken: AbstractContextManager[None]) -> str | None:
    """What is noticed in a network while something is broken; None for nothing.

    In a process of its own: a kernel whose arguments do not fit together may write where it should
    not, which the next networks would suffer from.
    """
    # Here, so that no process does it again.
    _captured(known["seed"])
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_send_difference, args=(sender, known, broken))
    process.start()
    sender.close()
    try:
        found: str | None = receiver.recv()
    except EOFError:
        found = "the process died"
    process.join()
    return found


def _send_difference(
    sender: Connection, known: Record, broken: AbstractContextManager[None]
) -> None:
    with broken:
        sender.send(_noticed(known))


def _noticed(known: Record) -> str | None:
    try:
        record = _record(known["seed"])
    except Exception as error:  # noqa: BLE001
        # Whatever a broken rule makes nestedge raise is noticed.
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:90]}"
    if isinstance(known.get("twin"), float) and not isinstance(record.get("twin"), float):
        return f"no narrower twin: {record['twin']}"
    if record["axes"] < known["axes"]:
        return f"{record['axes']} axes, not {known['axes']}"
    return None


@contextmanager
def _broken(op: str, mutate: Callable[[Rule], Rule]) -> Iterator[None]:
    with mock.patch.dict(RULES, {op: mutate(RULES[op])}):
        yield


@contextmanager
def _left_out(op: str) -> Iterator[None]:
    rewrites = rewrite._REWRITES
    with mock.patch.dict(rewrites):
        del rewrites[op]
        yield


def rule_noticed(op: str, networks: Sequence[Record]) -> Noticed:
    """How a broken rule is noticed by one of some networks that have the operator."""
    tried = 0
    for how, mutate in MUTATIONS.items():
        for known in networks[:TRIES]:
            tried += 1
            what = _difference(known, _broken(op, mutate))
            if what is not None:
                return Noticed(how, known["seed"], what, tried)
    return Noticed("none", None, "", tried)


def rewrite_noticed(op: str, networks: Sequence[Record]) -> Noticed:
    """How it is noticed that an operator's sizes are not rewritten."""
    chosen = networks[: TRIES * 8]
    for tried, known in enumerate(chosen, start=1):
        what = _difference(known, _left_out(op))
        if what is not None:
            return Noticed("left out", known["seed"], what, tried)
    return Noticed("none", None, "", len(chosen))


def is_refused(op: str, seed: int) -> bool:
    """Whether a network is refused by the operator's name once that has no rule."""
    with mock.patch.dict(RULES):
        del RULES[op]
        try:
            analyse(_captured(seed).program)
        except UsageError as error:
            return f"no rule for operator {op}" in str(error)
    return False


def disable(known: Mapping[int, Record], names: Sequence[str]) -> int:
    """Break rules and print who notices, as a Markdown table; 1 when no network does.

    Args:
        known: the records of a run.
        names: of operators; all where there are none.
    """
    done = sorted((r for r in known.values() if "levels" in r), key=lambda r: int(r["nodes"]))
    print("| operator | refused without | broken | noticed by | as | tried |")
    print("|---|---|---|---|---|---|", flush=True)
    silent = []
    for op in names or sorted(RULES):
        # Networks whose levels have twins notice more.
        networks = sorted(
            (r for r in done if op in r["ops"]), key=lambda r: not isinstance(r.get("twin"), float)
        )
        refused = is_refused(op, networks[0]["seed"]) if networks else False
        found = [rule_noticed(op, networks)]
        if op in rewrite._REWRITES:
            found.append(rewrite_noticed(op, networks))
        for row in found:
            by = "**none**" if row.seed is None else str(row.seed)
            cells = (op, "yes" if refused else "no", row.how, by, row.what, str(row.tried))
            print(f"| {' | '.join(cells)} |", flush=True)
        silent += [op for row in found if row.seed is None]
    print(f"\nnoticed by no network: {silent or 'none'}")
    return int(bool(silent))
