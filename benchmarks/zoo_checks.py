"""What is tried with one network of the zoo, each check as a record of plain data."""

from __future__ import annotations

import math
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks.counting import count_parameters
from benchmarks.zoo_networks import Entry, Subject, subjects, tensors_of
from benchmarks.zoo_scaling import live_norms, randomise, settle
from nestedge import cost
from nestedge.axes.rules import RULES
from nestedge.elastic import study
from nestedge.errors import UsageError
from nestedge.folding import fold_batch_norms
from nestedge.intervals import entries as kept_entries
from nestedge.materialization import level_program, materialize
from nestedge.model import NestedModel
from nestedge.plan import cut
from nestedge.program.capture import capture
from nestedge.program.reading import Capture

Record = dict[str, Any]
WIDTHS = (0.75, 0.5, 0.25)
"""Falling, so that a network zeroed for one is zeroed for the next."""
LARGE = 150_000_000
HALF = "0.5"


def check_nesting(entry: Entry) -> Iterator[Record]:
    """Nest a network and materialise its levels; a record after every stage, the last is whole."""
    record: Record = {"stage": "export"}
    yield record
    subject, captured, told = exported(entry)
    record |= {**told, "stage": "analysis", "operators": len(captured.program.nodes)}
    record["ops"] = sorted({node.op for node in captured.program.nodes} - RULES.keys())
    yield record
    elastic, seconds = timed(lambda: study(captured.program))
    record["seconds"]["analysis"] = seconds
    nested = _nested(captured, elastic)
    record["captured"] = error_of(_run(nested, subject), _run(subject.module, subject))
    record |= {"stage": "levels", "levels": {}, "axes": len(elastic.layout.axes)}
    for width in WIDTHS if entry.parameters <= LARGE else (0.5,):
        record["stage"] = f"level {width}"
        yield record
        record["levels"][str(width)] = _check_level(nested, subject, width)
    yield record | {"stage": "done"}


def exported(entry: Entry) -> tuple[Subject, Capture, Record]:
    """The first form of a network that can be captured, and what became of those before it.

    Raises:
        UsageError: none can.
    """
    reasons: dict[str, str] = {}
    for make_subject in subjects(entry):
        try:
            subject = make_subject()
            if subject.form != "whole" or entry.category != "detection":
                randomise(subject, seed=0)
            arguments = subject.inputs
            if entry.category == "detection" and subject.form == "whole":
                arguments = (list(subject.inputs[0]),)  # type: ignore[assignment]
            captured, seconds = timed(
                lambda s=subject, a=arguments: capture(s.module, a)  # type: ignore[misc]
            )
        except UsageError as error:
            reasons.setdefault("whole" if not reasons else "in parts", str(error))
            continue
        return (
            subject,
            captured,
            {
                "form": subject.form,
                "not_whole": reasons.get("whole"),
                "inputs": [list(value.shape) for value in subject.inputs],
                "parameters": count_parameters(subject.module),
                "seconds": {"export": seconds},
            },
        )
    raise UsageError("; in parts: ".join(reasons.values()))


def _nested(captured: Capture, elastic: Any) -> NestedModel:
    return NestedModel(
        elastic, captured.tensors, examples=captured.examples, aliases=captured.aliases
    )


def _check_level(nested: NestedModel, subject: Subject, width: float) -> Record:
    """Add a level, materialise it, and compare it with the level and the zeroed network.

    The network is settled anew without what the level lacks: the nested one has its tensors.
    """
    name = f"w{width}".replace(".", "_")
    _, adding = timed(lambda: nested.add_level(name, width))
    _zero(subject, nested, name)
    handles = live_norms(subject.module)
    settle(subject, seed=len(nested.levels))
    _renew_own(subject, nested, name)
    physical, writing = timed(lambda: materialize(nested, name))
    with nested.at(name):
        expected = _run(nested, subject)
    found = _run(physical.module(), subject)
    program = level_program(nested, name).program
    kept, all_ = cost.count_parameters(program), cost.count_parameters(nested.elastic.program)
    zeroed = _run(subject.module, subject)
    for handle in handles:
        handle.remove()
    return {
        "error": error_of(found, expected),
        "zeroed": error_of(zeroed, expected),
        "largest": max(float(value.abs().max()) for value in expected),
        "smallest": min(float(value.abs().max()) for value in expected),
        "varies": min(_variation(value) for value in expected),
        "ratio": kept / all_,
        "seconds": adding + writing,
    }


def _renew_own(subject: Subject, nested: NestedModel, level: str) -> None:
    """Take a level's own batch norms from the network."""
    tensors = {**dict(subject.module.named_parameters()), **dict(subject.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in nested.own_tensors(level).items():
            tensor.copy_(cut(tensors[name], nested.nesting.uses(level, name) or ()))


def _variation(value: Tensor) -> float:
    """How much the two cases of a batch differ: near 0 the output does not depend on the input."""
    return float((value[0] - value[-1]).abs().max() / value.abs().max())


def _zero(subject: Subject, nested: NestedModel, level: str) -> None:
    """Set every entry to zero that a level does not have, in the user's own module."""
    owners = {**dict(subject.module.named_parameters()), **dict(subject.module.named_buffers())}
    with torch.no_grad():
        for name in nested.elastic.program.used_tensors() & owners.keys():
            for dim, kept in enumerate(nested.nesting.uses(level, name) or ()):
                if kept is not None:
                    gone = torch.from_numpy(~kept_entries(kept, owners[name].shape[dim]))
                    owners[name].index_fill_(dim, gone.nonzero().flatten(), 0)


def check_onnx(entry: Entry) -> Iterator[Record]:
    """Export the level of width 1/2 to ONNX and run it in onnxruntime."""
    exporter = import_module("nestedge_onnx.exporter")
    runtime = import_module("nestedge_onnx.runtime").OnnxRuntime()
    subject, captured, _ = exported(entry)
    nested = _nested(captured, study(captured.program))
    nested.add_level("half", 0.5)
    level = fold_batch_norms(level_program(nested, "half"))
    yield {"stage": "export to ONNX"}
    model, seconds = timed(lambda: exporter.export_model(level, batch=2))
    yield {"stage": "onnxruntime", "seconds": seconds}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.onnx"
        path.write_bytes(model.SerializeToString())
        names = [spec.name for spec in level.program.inputs]
        arrays = (value.numpy() for value in subject.inputs)
        given = runtime.open(path, threads=1).run(dict(zip(names, arrays, strict=True)))
    with nested.at("half"):
        expected = _run(nested, subject)
    found = tuple(torch.from_numpy(given[name]) for name, _ in level.program.outputs)
    yield {"stage": "done", "seconds": seconds, "error": error_of(found, expected)}


def check_torch_pruning(entry: Entry) -> Iterator[Record]:
    """One generic call of Torch-Pruning at one half, given the network and example inputs only."""
    pruning = import_module("torch_pruning")
    # A detector as a whole has no example inputs of a batch: it gets the same part as nestedge.
    forms = list(subjects(entry))
    subject = (forms[-1] if entry.category == "detection" else forms[0])()
    before, expected = count_parameters(subject.module), _run(subject.module, subject)
    yield {"stage": "pruning"}
    first, *others = subject.inputs
    inputs = subject.inputs if others else first
    importance = pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = pruning.pruner.MagnitudePruner(
        subject.module, inputs, importance=importance, pruning_ratio=0.5
    )
    pruner.step()
    yield {"stage": "running the pruned network"}
    found = _run(subject.module, subject)
    kept = [a.shape == b.shape for a, b in zip(found, expected, strict=True)]
    ratio = count_parameters(subject.module) / before
    yield {"stage": "done", "ratio": ratio, "same_outputs": all(kept)}


def _run(module: Any, subject: Subject) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tensors_of(module(*subject.inputs))


def error_of(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest of max|found - expected| / max|expected| of all outputs; NaN if there is one."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        error = float((one.double() - other.double()).abs().max() / other.double().abs().max())
        worst = error if math.isnan(error) else max(worst, error)
        if math.isnan(worst):
            break
    return worst


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the seconds of the processor that it took."""
    begun = time.process_time()
    result = call()
    return result, time.process_time() - begun


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
    "onnx": check_onnx,
    "torch-pruning": check_torch_pruning,
}
