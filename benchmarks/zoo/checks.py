"""What is tried with one network of the zoo, each check as a record of plain data."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.networks.counting import count_parameters
from benchmarks.zoo.levels import (
    Record,
    check_level,
    error_of,
    exported,
    last_layers,
    level_name,
    live_outputs,
    nested_of,
    outputs_of,
    seconds_of_export,
    timed,
    zeroed_outputs,
)
from benchmarks.zoo.networks import Entry, Subject, cast, precision, subjects
from benchmarks.zoo.table import is_right_onnx
from nestedge.axes.rules import RULES
from nestedge.convert import LevelProgram
from nestedge.elastic import study
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program, materialize
from nestedge.model import NestedModel
from nestedge.program.emit import ProgramModule

WIDTHS = (0.75, 0.5, 0.25)
"""Falling, so that a network zeroed for one is zeroed for the next."""
LARGE = 150_000_000
"""Parameters of a network for which the two narrower widths are enough."""


def check_nesting(entry: Entry) -> Iterator[Record]:
    """Nest a network and materialise its levels; a record after every stage, the last is whole.

    In double precision: a network of a hundred layers with random weights multiplies a rounding
    error of single precision by up to 1e5, and then no limit tells it from a wrong channel. In
    double precision rounding stays below 1e-9, and what is above is wrong.
    """
    record: Record = {"stage": "export", "precision": "double"}
    with precision(torch.float64):
        yield record
        subject, captured, told = exported(entry, torch.float64)
        record |= {**told, "stage": "analysis"}
        record["ops"] = sorted({node.op for node in captured.program.nodes} - RULES.keys())
        yield record
        elastic = study(captured.program)
        nested = nested_of(captured, elastic)
        whole = outputs_of(subject.module, subject)
        record["captured"] = error_of(outputs_of(nested, subject), whole)
        record |= {"stage": "levels", "levels": {}, "axes": len(elastic.layout.axes)}
        for width in WIDTHS if entry.parameters <= LARGE else WIDTHS[1:]:
            record["stage"] = f"level {width}"
            yield record
            record["levels"][str(width)] = check_level(nested, subject, width)
        yield record | {"stage": "done"}


def check_cost(entry: Entry) -> Iterator[Record]:
    """Measure one export, the analysis and every level, in single precision, as users have it."""
    yield {"stage": "export"}
    subject, captured, told = exported(entry, torch.float32)
    record: Record = {"stage": "levels", "seconds": told["seconds"], "levels": {}}
    record["seconds"]["export"] = seconds_of_export(subject)
    elastic, record["seconds"]["analysis"] = timed(lambda: study(captured.program))
    nested = nested_of(captured, elastic)
    for width in WIDTHS if entry.parameters <= LARGE else WIDTHS[1:]:
        yield record
        name = level_name(width)
        _, adding = timed(partial(nested.add_level, name, width))
        _, writing = timed(partial(materialize, nested, name))
        record["levels"][str(width)] = {"seconds": adding + writing}
    yield record | {"stage": "done"}


def check_onnx(entry: Entry) -> Iterator[Record]:
    """Export the level of width 1/2 to ONNX, in single precision, and run it in onnxruntime.

    Two programs that round differently drift apart as far as the weights let them, and folding a
    batch norm rounds differently. So both onnxruntime and torch, which runs the very program that
    was exported, are compared with the user's own module, zeroed, in double precision.
    """
    exporter = import_module("nestedge_onnx.exporter")
    runtime = import_module("nestedge_onnx.runtime").OnnxRuntime()
    subject, nested, told = _halved(entry, torch.float32)
    level = fold_batch_norms(level_program(nested, "half"))
    record: Record = {"is_transformer": told["is_transformer"]}
    yield record | {"stage": "export to ONNX"}
    model, seconds = timed(partial(exporter.export_model, level, batch=2))
    record["seconds"] = seconds
    yield record | {"stage": "onnxruntime"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.onnx"
        path.write_bytes(model.SerializeToString())
        given = runtime.open(path, threads=1).run(_arrays(level, subject))
    found = tuple(torch.from_numpy(given[name]) for name, _ in level.program.outputs)
    with nested.at("half"):
        expected = outputs_of(nested, subject)
    record["error"] = error_of(found, expected)
    folded = outputs_of(ProgramModule(level.program, level.tensors), subject)
    yield record | {"stage": "double precision"}
    del nested, level, model
    with precision(torch.float64):
        true = live_outputs(cast(subject, torch.float64))
    record["from_true"] = error_of(found, true)
    record["torch_from_true"] = error_of(folded, true)
    if not is_right_onnx(record | {"stage": "done"}):
        yield record | {"stage": "onnx's reference evaluator"}
        record["reference"] = _reference_error(entry)
    yield record | {"stage": "done"}


def _reference_error(entry: Entry) -> float:
    """How far the level of width 1/2, as ONNX in double precision, is from the zeroed module.

    Run by onnx's own evaluator: onnxruntime has no convolutions in double precision.
    """
    exporter = import_module("nestedge_onnx.exporter")
    with precision(torch.float64):
        subject, nested, _ = _halved(entry, torch.float64)
        level = fold_batch_norms(level_program(nested, "half"))
        model = exporter.export_model(level, batch=2)
        evaluator = import_module("onnx.reference").ReferenceEvaluator(model)
        given = evaluator.run(None, _arrays(level, subject))
        by_name = dict(zip((output.name for output in model.graph.output), given, strict=True))
        found = tuple(torch.from_numpy(by_name[name]) for name, _ in level.program.outputs)
        return error_of(found, live_outputs(subject))


def _halved(entry: Entry, dtype: torch.dtype) -> tuple[Subject, NestedModel, Record]:
    """A network with a level of width 1/2, its module zeroed for that, and what was told of it."""
    subject, captured, told = exported(entry, dtype)
    nested = nested_of(captured, study(captured.program))
    nested.add_level("half", 0.5)
    zeroed_outputs(nested, subject, "half")
    return subject, nested, told


def _arrays(level: LevelProgram, subject: Subject) -> dict[str, Array]:
    """The inputs by the names that they have in a level's program."""
    names = (spec.name for spec in level.program.inputs)
    return dict(zip(names, (value.numpy() for value in subject.inputs), strict=True))


def check_torch_pruning(entry: Entry) -> Iterator[Record]:
    """One generic call of Torch-Pruning at one half, told what gives the outputs, and no more."""
    pruning = import_module("torch_pruning")
    # A detector as a whole has no example inputs of a batch: it gets the same part as nestedge.
    forms = list(subjects(entry))
    subject = (forms[-1] if entry.category == "detection" else forms[0])()
    before, expected = count_parameters(subject.module), outputs_of(subject.module, subject)
    ignored = last_layers(subject)
    yield {"stage": "pruning"}
    first, *others = subject.inputs
    pruner = partial(
        pruning.pruner.MagnitudePruner,
        subject.module,
        subject.inputs if others else first,
        importance=pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
    )
    _, seconds = timed(lambda: pruner().step())
    yield {"stage": "running the pruned network", "seconds": seconds}
    found = outputs_of(subject.module, subject)
    kept = [a.shape == b.shape for a, b in zip(found, expected, strict=True)]
    ratio = count_parameters(subject.module) / before
    yield {"stage": "done", "ratio": ratio, "same_outputs": all(kept)}


def failure(error: BaseException) -> Record:
    """What went wrong, and the innermost line of nestedge's that it went through."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if "nestedge" in Path(f.filename).parts[-4:-1] or "axes" in f.filename
    ]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else ""
    return {
        "failed": f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}",
        "where": where,
    }


CHECKS: dict[str, Callable[[Entry], Iterator[Record]]] = {
    "nestedge": check_nesting,
    "cost": check_cost,
    "onnx": check_onnx,
    "torch-pruning": check_torch_pruning,
}
