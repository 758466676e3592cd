"""Names the operator at which the error of an artifact arises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from nestedge.artifact import Artifact, Reference, read_reference
from nestedge.documents import Value, read_json
from nestedge.errors import NestedgeError
from nestedge.plugins import Array, Runtime, TensorInfo
from nestedge.verify.alignment import Alignment, align_by_name, align_by_value, parent_of
from nestedge.verify.closeness import relative_error
from nestedge.verify.data import EXACT, exact_sibling
from nestedge.verify.steps import JUMP, PLUMBING, Localisation, Step, WorstOperator, worst_step
from nestedge.verify.trace import Trace, TracedOperator, TracingRuntime

Network = Callable[[str, Mapping[str, Array]], Trace]
"""Runs a level, by its name, for one case of inputs."""

BY_TORCH = "the network, run by torch"
_CONSTANTS_FILE = "constants.json"
_OTHER_NETWORK = "the network given is not the one that this was built from"
_FUSED = (
    "with the runtime's optimisations off the error is within the tolerance: what differs is how "
    "the runtime computes the operators, fused or in whole numbers"
)
_FOLDED = 1e-4
"""Single precision, with batch norms folded and without."""


def localise(
    artifact: Artifact, runtime: Runtime, *, network: Network | None = None, threads: int = 1
) -> Localisation:
    """Where the error of an artifact arises, in the case of its reference that is worst.

    The values that the model computes on the way are compared with those of the cell of the same
    level and runtime in single precision. For one in single precision itself, and where there is
    none, they are compared with those of the network.

    Args:
        artifact: whose integrity was checked.
        runtime: that runs it.
        network: runs a level, where there is the .nest and torch.
        threads: CPU threads of the runtime.

    Returns:
        Without an operator where it cannot be said; `note` says why.
    """
    try:
        return _localised(artifact, runtime, network=network, threads=threads)
    except (NestedgeError, ValueError) as error:
        return _unknown(str(error))


def _localised(
    artifact: Artifact, runtime: Runtime, *, network: Network | None, threads: int
) -> Localisation:
    if not isinstance(runtime, TracingRuntime):
        return _unknown(f"runtime {runtime.name!r} does not tell the values in between")
    exact = None if artifact.precision == EXACT else exact_sibling(artifact)
    if exact is None and network is None:
        return _unknown(_nothing_to_compare_with(artifact))
    reference = read_reference(artifact)
    case, output, error = _worst_case(artifact, runtime, reference, threads=threads)
    trace = runtime.trace(artifact.model_path, reference.case(case), threads=threads)
    modules = _modules(artifact, trace)
    if exact is not None:
        other = runtime.trace(exact.model_path, reference.case(case), threads=threads)
        aligned, name, most = align_by_name(trace, other), exact.cell, exact.tolerance
    else:
        other = cast("Network", network)(artifact.level, reference.case(case))
        name, most = BY_TORCH, _FOLDED
        aligned = align_by_value(trace, other, modules=modules, tolerance=artifact.tolerance)
    notes = []
    if _is_wrong(artifact.outputs, other, reference, case=case, tolerance=most):
        notes.append(_OTHER_NETWORK if exact is None else f"{name} is wrong too: see to that first")
    value, limit = trace.outputs[output], artifact.tolerance
    step = worst_step(trace, aligned.expected, output=value, tolerance=limit)
    if error > limit and _is_gone(trace, aligned, value, limit):
        step = None
        notes.append(_FUSED)
    elif step is None:
        notes.append("no value on the way has a counterpart that it could be compared with")
    elif step.growth < JUMP:
        notes.append("no operator stands out: the error grows from one to the next")
    return Localisation(
        reference=name,
        compared=len(aligned.expected),
        values=len(trace.values),
        operator=None if step is None else _named(step, trace, modules, aligned),
        note="; ".join(notes),
    )


def _unknown(note: str) -> Localisation:
    return Localisation(reference="", compared=0, values=0, operator=None, note=note)


def _nothing_to_compare_with(artifact: Artifact) -> str:
    if artifact.precision == EXACT:
        return "single precision is compared with the network itself: give --model"
    cell = f"{artifact.level}/{artifact.runtime}-{EXACT}"
    return f"no {cell} beside it to compare with: build it, or give --model"


def _worst_case(
    artifact: Artifact, runtime: Runtime, reference: Reference, *, threads: int
) -> tuple[int, str, float]:
    """Index of the case with the largest error, the output that has it, and the error."""
    session = runtime.open(artifact.model_path, threads=threads)
    worst = (0, artifact.outputs[0].name, -1.0)
    for case in range(reference.cases):
        found = session.run(reference.case(case))
        for info in artifact.outputs:
            if info.name not in found:
                raise NestedgeError(f"output {info.name!r} is missing: nothing to start from")
            expected = reference.outputs[info.name][case]
            is_comparable = found[info.name].shape == expected.shape
            error = relative_error(found[info.name], expected) if is_comparable else math.inf
            if error > worst[2]:
                worst = case, info.name, error
    return worst


def _is_wrong(
    outputs: Sequence[TensorInfo],
    trace: Trace,
    reference: Reference,
    *,
    case: int,
    tolerance: float,
) -> bool:
    """Whether what should be exact does not give what the level gives."""
    pairs = (
        (trace.values.get(trace.outputs.get(info.name, "")), reference.outputs[info.name][case])
        for info in outputs
    )
    return any(
        found is not None
        and (found.shape != expected.shape or relative_error(found, expected) > tolerance)
        for found, expected in pairs
    )


def _is_gone(trace: Trace, aligned: Alignment, output: str, tolerance: float) -> bool:
    if output not in aligned.expected:
        return False
    return relative_error(trace.values[output], aligned.expected[output]) <= tolerance


def _modules(artifact: Artifact, trace: Trace) -> dict[str, str]:
    """Path of the module whose weight an operator has, by the name of the operator."""
    path = artifact.folder / _CONSTANTS_FILE
    listed = read_json(path).members().get("constants") if path.is_file() else None
    owners: dict[str, tuple[int, str]] = {}
    for constant in listed.elements() if listed is not None else ():
        field = constant.members()
        expression = field["expression"].optional()
        if expression is not None and (module := _owner(expression)):
            size = math.prod(item.integer(minimum=0) for item in field["shape"].elements())
            owners[field["name"].string()] = size, module
    found = {}
    for operator in trace.operators:
        known = [owners[name] for name in operator.constants if name in owners]
        if known:
            # The largest is the weight; a bias may have been moved from elsewhere.
            found[operator.name] = max(known)[1]
    return found


def _owner(expression: Value) -> str:
    """Path of the module of the tensor that a constant is made from in the first place."""
    field = expression.members()
    if "name" in field:
        # "shared/", "levels/<level>/" or "codes/" stands before the name of the tensor.
        return parent_of(field["name"].string().rpartition("/")[2])
    inputs = field["inputs"].elements() if "inputs" in field else ()
    return _owner(inputs[0]) if inputs else ""


def _named(
    step: Step, trace: Trace, modules: Mapping[str, str], aligned: Alignment
) -> WorstOperator:
    operator = step.operator(modules)
    kinds = tuple(found.kind for found in step.region if found.kind not in PLUMBING)
    own = modules.get(operator.name) or aligned.modules.get(step.value)
    return WorstOperator(
        kind=operator.kind,
        name=operator.name,
        module=own or _behind(operator, trace, modules),
        value=step.value,
        input_error=step.input_error,
        output_error=step.output_error,
        between=kinds if len(kinds) > 1 else (),
    )


def _behind(operator: TracedOperator, trace: Trace, modules: Mapping[str, str]) -> str:
    """The nearest layer on the way to an operator that has no weights."""
    waiting, seen = [operator], {operator.name}
    while waiting:
        following: list[TracedOperator] = []
        for one in waiting:
            for name in one.inputs:
                maker = trace.makers.get(name)
                if maker is None or maker.name in seen:
                    continue
                if maker.name in modules:
                    return f"behind {modules[maker.name]}"
                seen.add(maker.name)
                following.append(maker)
        waiting = following
    return ""
