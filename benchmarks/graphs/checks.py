"""What is checked of one random network, as a record of plain data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.graphs.descriptions import Description
from benchmarks.graphs.levels import asked_levels
from benchmarks.graphs.networks import build, images
from benchmarks.graphs.oracle import expected_of
from benchmarks.graphs.subjects import (
    TOLERANCE,
    PropertyError,
    Record,
    Subject,
    added,
    error_of,
    run,
    within,
)
from benchmarks.graphs.twins import SHARE, check_twin
from nestedge.card import Card
from nestedge.cost import count_macs, count_parameters
from nestedge.errors import UsageError
from nestedge.harvest import harvest
from nestedge.levels import Level
from nestedge.materialization import harvest_level, materialize
from nestedge.nested import nest
from nestedge.nestfile import load
from nestedge.program.emit import ProgramModule

VARIES = 1e-6
"""Below this share of the largest value, an output does not depend on the input."""
SAVED = 8
"""Of so many networks one is saved and loaded, and each that differs in training."""
TRAINED = "aten.batch_norm.default"
"""What makes a network in training another program."""
NESTED_AGAIN = 2
"""Of so many networks one has a materialised level nested again."""


def variation(outputs: tuple[Tensor, ...]) -> float:
    """How much the cases of a batch differ, as a share of the largest value."""
    return min(float((y[0] - y[-1]).abs().max() / y.abs().max().clamp_min(1e-300)) for y in outputs)


def check(description: Description) -> Record:
    """Everything that is checked of one network.

    Raises:
        PropertyError: a property does not hold; the message says which, and of which level.
        UsageError: the network cannot be nested.
    """
    module, x = build(description), images(description)
    nested = nest(module, x, {}, card=Card(divisor=1))
    subject = Subject(description, module, x, nested)
    record = check_levels(subject)
    asked = [name for name in nested.levels if name != SHARE]
    if asked:
        record["written"] = _check_written(subject, asked[description.seed % len(asked)])
    if description.seed % SAVED == 0 or TRAINED in record["ops"]:
        record["ops"] = sorted({*record["ops"], *_check_saved(subject, record)})
    return record


def check_levels(subject: Subject) -> Record:
    """Add levels to a network and check each of them.

    Raises:
        PropertyError: a property does not hold; the message says which, and of which level.
    """
    nested, description = subject.nested, subject.description
    outputs = run(subject.module, subject.x)
    record: Record = {
        "seed": description.seed,
        "ops": sorted({node.op for node in nested.elastic.program.nodes}),
        "nodes": len(nested.elastic.program.nodes),
        "axes": len(nested.nesting.axes),
        "captured": within(error_of(run(nested, subject.x), outputs), "the full network"),
        "varies": variation(outputs),
        "refused": {},
    }
    for name, asked in asked_levels(nested, description.seed).items():
        added(nested, name, asked.level, record)
    record["levels"] = {name: _check_level(subject, name) for name in nested.levels}
    if description.is_scalable:
        record["twin"] = check_twin(subject, record)
    return record


def _check_level(subject: Subject, name: str) -> Record:
    nested, x = subject.nested, subject.x
    with nested.at(name):
        level = run(nested, x)
    found = harvest_level(nested, name)
    physical = ProgramModule(found.level.program, found.level.tensors)
    materialised = within(error_of(run(physical, x), level), f"{name}: materialised")
    expected = expected_of(subject.module, nested, name, x)
    error = error_of(expected.present, level)
    undecided = sorted(expected.told.undecided) if not error <= TOLERANCE else []
    if not undecided:
        within(error, f"{name}: the level, by what is present")
    zeroed = None
    if expected.zeroed is not None and not undecided:
        zeroed = within(error_of(expected.zeroed, level), f"{name}: the level, with zeros")
    full, cut = nested.elastic.program, nested.plan(name).program
    _check_size(name, found.level.program, (cut, full), physical)
    is_masked = nested.nesting.is_masked(name)
    # Of a level without masks nothing is looked for: what is constant in it is the network's own.
    again = harvest(found.level) if is_masked else found
    if is_masked and (again.removed, again.kernels, again.branches) != ({}, {}, ()):
        raise PropertyError(f"{name}: harvested again, {again.removed} {again.kernels} more go")
    return {
        "materialised": materialised,
        "present": None if undecided else error,
        "undecided": undecided,
        "zeroed": zeroed,
        "uneven": sorted(expected.told.uneven),
        "masked": is_masked,
        "ratio": count_parameters(found.level.program) / count_parameters(full),
        "varies": variation(level),
        "removed": sum(found.removed.values()),
        "rings": len(found.kernels),
        "branches": len(found.branches),
    }


def _check_size(name: str, program: Any, larger: tuple[Any, ...], physical: nn.Module) -> None:
    parameters, macs = count_parameters(program), count_macs(program)
    for other in larger:
        if parameters > count_parameters(other):
            raise PropertyError(f"{name}: {parameters} parameters, of {count_parameters(other)}")
        if macs > count_macs(other):
            raise PropertyError(f"{name}: {macs} MACs, of {count_macs(other)}")
    stored = sum(parameter.numel() for parameter in physical.parameters())
    if stored != parameters:
        raise PropertyError(f"{name}: {stored} parameters are stored of {parameters}")


class _Loaded(nn.Module):
    """A materialised level as a module to nest.

    Its input has a name, which `torch.export` leaves without one, and it has no modes.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)

    def train(self, mode: bool = True) -> _Loaded:  # noqa: ARG002
        return self


def _check_written(subject: Subject, name: str) -> Record:
    """A level written as an exported program; of some networks it is nested once more."""
    nested, x = subject.nested, subject.x
    physical = materialize(nested, name).module()
    with nested.at(name):
        found = error_of(run(physical, x), run(nested, x))
    record: Record = {"exported": within(found, f"{name}: exported")}
    if subject.description.seed % NESTED_AGAIN == 0:
        record["again"] = _check_again(subject, name, physical)
    return record


def _check_again(subject: Subject, name: str, physical: nn.Module) -> float:
    """A materialised level, nested and materialised once more, is as large and gives the same."""
    loaded = _Loaded(physical)
    again = nest(loaded, subject.x, {"all": 1.0}, card=Card(divisor=1))
    chosen = ["all"]
    if subject.nested.nesting.is_masked(name):
        masks = {n: (p != 0).numpy() for n, p in loaded.named_parameters()}
        again.add_level("masked", Level(masks=masks))
        chosen.append("masked")
    whole = harvest_level(subject.nested, name).level.program
    errors = []
    for level in chosen:
        found = harvest_level(again, level)
        counts = [(count_parameters(p), count_macs(p)) for p in (found.level.program, whole)]
        is_done = (found.removed, found.kernels, found.branches) == ({}, {}, ())
        # Without masks nothing is looked for; with them, what was left has no more to give.
        if counts[0] != counts[1] or not is_done:
            raise PropertyError(
                f"{name}, nested again: {counts[0]} of {counts[1]}, {found.removed}"
            )
        outputs = run(ProgramModule(found.level.program, found.level.tensors), subject.x)
        errors.append(error_of(outputs, run(physical, subject.x)))
    return within(max(errors), f"{name}, nested again")


def _check_saved(subject: Subject, record: Record) -> set[str]:
    """Save and load; the operators of the network in training are given."""
    nested = subject.nested
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.nest"
        try:
            nested.save(path)
        except UsageError as error:
            record["refused"]["save"] = str(error)
            return set()
        loaded = load(path)
    for name in nested.levels:
        with nested.at(name), loaded.at(name):
            found = error_of(run(loaded, subject.x), run(nested, subject.x))
        within(found, f"{name}: loaded")
    record["saved"] = True
    return {node.op for node in nested.training_program.nodes}
