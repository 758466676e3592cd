"""One network of the zoo, captured, and its levels compared with what they are to compute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn.modules.conv import _ConvNd

from benchmarks.networks.counting import count_parameters
from benchmarks.zoo.networks import Entry, Subject, cast, subjects, tensors_of
from benchmarks.zoo.scaling import live_norms, randomise, settle
from nestedge import cost
from nestedge.errors import UsageError
from nestedge.intervals import entries as kept_entries
from nestedge.materialization import level_program, materialize
from nestedge.model import NestedModel
from nestedge.plan import cut
from nestedge.program.capture import capture
from nestedge.program.reading import Capture

Record = dict[str, Any]


def exported(entry: Entry, dtype: torch.dtype) -> tuple[Subject, Capture, Record]:
    """The first form of a network that can be captured, and what became of those before it.

    Args:
        entry: the network.
        dtype: the precision of its parameters, buffers and inputs.

    Raises:
        UsageError: none can.
    """
    reasons: dict[str, str] = {}
    for make_subject in subjects(entry):
        subject = cast(make_subject(), dtype)
        listed = entry.category == "detection" and subject.form == "whole"
        try:
            if not listed:
                randomise(subject, seed=0)
            arguments = (list(subject.inputs[0]),) if listed else subject.inputs
            captured, seconds = timed(partial(capture, subject.module, arguments))
        except UsageError as error:
            reasons.setdefault("whole" if not reasons else "in parts", str(error))
            continue
        return (
            subject,
            captured,
            _told(subject, captured, reasons.get("whole")) | {"seconds": {"capture": seconds}},
        )
    raise UsageError("; in parts: ".join(reasons.values()))


def _told(subject: Subject, captured: Capture, not_whole: str | None) -> Record:
    operators = " ".join(node.op for node in captured.program.nodes)
    return {
        "form": subject.form,
        "not_whole": not_whole,
        "inputs": [list(value.shape) for value in subject.inputs],
        "parameters": count_parameters(subject.module),
        "operators": len(captured.program.nodes),
        # By what it computes, not by its name. Optical flow has softmax too, over its corners.
        "is_transformer": "layer_norm" in operators
        and any(name in operators for name in ("softmax", "dot_product_attention")),
    }


def seconds_of_export(subject: Subject) -> float:
    """Of one torch.export of a network, when torch has traced that network before.

    The first takes longer. Levels are added by a process that has done all of this once, so that
    the shorter time is the one to compare with.
    """
    shapes = tuple({0: Dim("batch", min=1)} for _ in subject.inputs)
    call = partial(export, subject.module, subject.inputs, strict=False)
    try:
        return timed(partial(call, dynamic_shapes=shapes))[1]
    except Exception:  # noqa: BLE001
        # torch.export raises dozens of types where it cannot prove that any batch will do.
        return timed(call)[1]


def nested_of(captured: Capture, elastic: Any) -> NestedModel:
    """A captured network with no level yet."""
    return NestedModel(
        elastic, captured.tensors, examples=captured.examples, aliases=captured.aliases
    )


def check_level(nested: NestedModel, subject: Subject, width: float) -> Record:
    """Add a level, materialise it, and compare it with the level and the zeroed network.

    The level in the nested network is rewritten by the same rules as the materialised one: only
    the user's own module, run with zeros for what the level lacks, knows nothing of them.
    """
    name = level_name(width)
    nested.add_level(name, width)
    zeroed = zeroed_outputs(nested, subject, name)
    physical = materialize(nested, name)
    with nested.at(name):
        expected = outputs_of(nested, subject)
    found = outputs_of(physical.module(), subject)
    program = level_program(nested, name).program
    kept, all_ = cost.count_parameters(program), cost.count_parameters(nested.elastic.program)
    return {
        "error": error_of(found, expected),
        "zeroed": error_of(zeroed, expected),
        "largest": max(float(value.abs().max()) for value in expected),
        "smallest": min(float(value.abs().max()) for value in expected),
        "varies": min(_variation(value) for value in expected),
        "ratio": kept / all_,
    }


def level_name(width: float) -> str:
    """What the level of a width is called."""
    return f"w{width}".replace(".", "_")


def zeroed_outputs(nested: NestedModel, subject: Subject, level: str) -> tuple[Tensor, ...]:
    """What the user's own module gives with zeros in place of what a level lacks.

    It is settled anew for that: the nested network has its tensors, and with them other weights.
    """
    _zero(subject, nested, level)
    with live_norms(subject.module):
        settle(subject, seed=len(nested.levels))
    _renew_own(subject, nested, level)
    return live_outputs(subject)


def live_outputs(subject: Subject) -> tuple[Tensor, ...]:
    """What a module gives when its layer norms pass over channels that are zero."""
    with live_norms(subject.module):
        return outputs_of(subject.module, subject)


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


def outputs_of(module: Any, subject: Subject) -> tuple[Tensor, ...]:
    """What a module gives for the inputs of a network."""
    with torch.no_grad():
        return tensors_of(module(*subject.inputs))


def last_layers(subject: Subject) -> list[nn.Module]:
    """The convolutions and linear layers that give the outputs, or else the one that runs last."""
    given: list[tuple[nn.Module, Tensor]] = []

    def hook(module: nn.Module, _: object, output: Tensor) -> None:
        given.append((module, output))

    layers = [m for m in subject.module.modules() if isinstance(m, _ConvNd | nn.Linear)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    outputs = outputs_of(subject.module, subject)
    for handle in handles:
        handle.remove()
    found = [module for module, output in given if any(output is value for value in outputs)]
    return found or [module for module, _ in given[-1:]]


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
