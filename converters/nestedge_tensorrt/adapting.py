"""Rewrites the shipped file for the builder of a device, and checks that it still is its level.

onnxruntime runs the reference inputs in what was made, here: nothing is sent to a device that does
not compute the same.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import onnx

from nestedge.artifact import Artifact, read_reference
from nestedge.errors import NestedgeError, UsageError, VerificationError
from nestedge.plugins import Array, Session, load_converter
from nestedge.reasons import conversion_error
from nestedge.verify import relative_error
from nestedge_onnx.runtime import OnnxRuntime
from nestedge_tensorrt.batching import with_free_batch
from nestedge_tensorrt.engine import EngineSpec
from nestedge_tensorrt.forms import Form
from nestedge_tensorrt.opset13 import downgraded
from nestedge_tensorrt.parser import first_version
from nestedge_tensorrt.samples import in_batches

_BATCHES = (1, 2, 3)
"""The batch sizes that a file for any is tried with: one that is fixed fails the second."""


class _Halving(Protocol):
    def in_half(self, model: onnx.ModelProto) -> onnx.ModelProto: ...


@dataclass(frozen=True)
class Adapted:
    """A file in another form.

    Attributes:
        content: of the file.
        spec: of the engine, as it is to be built from this file.
    """

    content: bytes
    spec: EngineSpec


def adapted(artifact: Artifact, spec: EngineSpec, form: Form) -> Adapted:
    """The model of an artifact in another form.

    Raises:
        ConversionError: it has no such form; the message names the operator.
        VerificationError: it has, and that is not its level.
        MissingDependencyError: half precision is made by what converts levels, which needs torch.
    """
    if form.is_free and spec.batch != 1:
        raise UsageError(
            f"{artifact.cell}: batches of any size are made of a model for one sample, and this "
            f"one is for {spec.batch}: build it for a batch of 1"
        )
    model = onnx.load(artifact.model_path)
    if form.is_old:
        model = downgraded(model)
    if form.is_half:
        # torch, which only conversion needs, is imported by the plug-in.
        model = cast("_Halving", load_converter("tensorrt")).in_half(model)
    if form.is_free:
        model = with_free_batch(model)
    content = model.SerializeToString(deterministic=True)
    _check(artifact, content, form)
    minimum = spec.minimum_tensorrt
    if form.is_old:
        minimum = first_version(model, (*spec.inputs, *spec.outputs))
    opset = model.opset_import[0].version
    return Adapted(content, replace(spec, minimum_tensorrt=minimum, opset=opset))


def _check(artifact: Artifact, content: bytes, form: Form) -> None:
    """Refuses a file that does not give what the level gives."""
    reference = read_reference(artifact)
    with tempfile.TemporaryDirectory(prefix="nestedge-") as folder:
        path = Path(folder) / artifact.model
        path.write_bytes(content)
        session = OnnxRuntime().open(path)
    tried = [reference]
    if form.is_free:
        tried = [in_batches(reference, size) for size in _BATCHES]
    for given in tried:
        for case in range(given.cases):
            found = _run(session, given.case(case), form)
            for name, expected in given.outputs.items():
                error = _error(found[name], expected[case])
                if not error <= artifact.tolerance:
                    raise VerificationError(
                        f"{artifact.cell}: the model {form} is not its level: output {name!r}: "
                        f"error {error:.3g} is above {artifact.tolerance:.3g}"
                    )


def _run(session: Session, inputs: Mapping[str, Array], form: Form) -> dict[str, Array]:
    try:
        return session.run(inputs)
    except NestedgeError as error:
        if not form.is_free:
            raise
        # Shape inference does not look at all that an operator does.
        said = f"the model {form} does not run: {error}"
        raise conversion_error("fixed-batch", said) from error


def _error(found: Array, expected: Array) -> float:
    return relative_error(found, expected) if found.shape == expected.shape else math.inf
