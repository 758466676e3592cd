"""What is looked at before and after a conversion, so that a reason is told and not a number."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from nestedge.building.cells import Draft, Level
from nestedge.building.reference import reference_inputs
from nestedge.diagnosis import source_of
from nestedge.errors import FormatError, MissingDependencyError
from nestedge.plugins import load_runtime, runtimes
from nestedge.precisions import PRECISIONS
from nestedge.program.graph import Node, Weight, run
from nestedge.reasons import code_of, conversion_error


def check_numbers(level: Level) -> None:
    """Refuses a level that gives nothing, or no numbers, for the network's own example.

    A weight that is infinite or no number is let through where that does not show: a row of an
    embedding that nothing looks up, or a mask of minus infinity.

    Raises:
        ConversionError: no artifact could be checked against it; the weight or operator is named.
    """
    program, tensors = level.network.program, level.network.tensors
    examples = reference_inputs(level.nested, cases=1)
    inputs = [torch.from_numpy(examples[spec.name][0]) for spec in program.inputs]
    wrong_at: list[Node] = []

    def watch(node: Node, results: Sequence[object]) -> None:
        if not wrong_at and _has_nan(results):
            wrong_at.append(node)

    with torch.no_grad():
        found = run(program, tensors, inputs, watch=watch)
    outputs = {name: output for (name, _), output in zip(program.outputs, found, strict=True)}
    empty = [name for name, output in outputs.items() if output.numel() == 0]
    if empty:
        shape = tuple(outputs[empty[0]].shape)
        raise conversion_error("empty-tensor", f"the output {empty[0]!r} has shape {shape}")
    if not _has_nan(list(outputs.values())):
        return
    if not wrong_at:
        raise conversion_error("not-finite-weight", "an output is a weight that is no number")
    first = wrong_at[0]
    weights = [leaf.name for leaf in first.leaves() if isinstance(leaf, Weight)]
    source = source_of(program, first)
    wrong = [name for name in weights if not bool(torch.isfinite(tensors[name]).all())]
    if wrong:
        said = f"the weight {wrong[0]!r} is not finite, and so is the output"
        raise conversion_error("not-finite-weight", said, operator=first.op, source=source)
    said = "the level gives no number for the example it was nested with"
    raise conversion_error("not-finite-output", said, operator=first.op, source=source)


def check_quantisable(level: Level, precision: str) -> None:
    """Refuses whole numbers for a weight that is infinite or no number.

    Raises:
        ConversionError: naming the weight; its steps would be infinite too.
    """
    if PRECISIONS[precision].weight_bytes > 1:
        return
    program = level.program.program
    for name in sorted(program.used_tensors()):
        tensor = level.program.tensors[name]
        is_weight = program.tensors[name].role == "parameter"
        if is_weight and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            said = f"the weight {name!r} is not finite, and 8 bits hold finite numbers"
            raise conversion_error("not-finite-weight", said)


def check_opens(draft: Draft, *, runtime: str) -> None:
    """Refuses an artifact that the runtime which is to run it does not open.

    Converters write operators that no released runtime has.

    Raises:
        ConversionError: with what the runtime says.
    """
    if runtime not in runtimes():
        return
    try:
        opener = load_runtime(runtime)
    except MissingDependencyError:
        # What is not installed here cannot check here.
        return
    with tempfile.TemporaryDirectory() as name:
        for file, content in draft.files.items():
            (Path(name) / file).write_bytes(content)
        try:
            opener.open(Path(name) / draft.description.model)
        except FormatError as error:
            said = str(error).removeprefix(f"{Path(name) / draft.description.model}: ")
            said = said.replace(f"{name}{os.sep}", "")
            code = code_of(said, otherwise="refused-by-runtime")
            raise conversion_error(code, said) from error


def _has_nan(values: Sequence[object]) -> bool:
    return any(
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and bool(torch.isnan(value).any())
        for value in values
    )
