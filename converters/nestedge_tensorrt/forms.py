"""In which form the builder of a device is given the file that is shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nestedge.artifact import Artifact
from nestedge.errors import MissingDependencyError
from nestedge_tensorrt.engine import EngineSpec
from nestedge_tensorrt.options import EngineOptions
from nestedge_tensorrt.versions import is_at_least


@dataclass(frozen=True)
class Form:
    """What is another one in the file than in that which is shipped.

    Attributes:
        is_old: of the opset that TensorRT 8.2 parses.
        is_half: weights and arithmetic are of float16, where it is shipped in float32.
        is_free: it takes batches of any size.
    """

    is_old: bool = False
    is_half: bool = False
    is_free: bool = False

    def __str__(self) -> str:
        """In words, as in "in opset 13, for batches of any size"."""
        parts = {
            "in opset 13": self.is_old,
            "in half precision": self.is_half,
            "for batches of any size": self.is_free,
        }
        return ", ".join(words for words, given in parts.items() if given) or "as it is shipped"


AS_SHIPPED = Form()


def form_for(spec: EngineSpec, version: str, options: EngineOptions) -> Form:
    """The form that TensorRT of a version can build the engine that is asked for from.

    Weakly typed networks take float32 for fp16, and TensorRT rounds where that is faster. One that
    is strongly typed computes in the types that it is given: TensorRT 11 has no other, see the
    README of github.com/NVIDIA/TensorRT at release/11.0.

    Args:
        spec: of the engine.
        version: of TensorRT, as in "8.2.1" or "10.3.0.30".
        options: what is asked for.
    """
    is_too_new = not is_at_least(version, spec.minimum_tensorrt)
    return Form(
        # What came with 9 and 10 are types and operators that no older form has.
        is_old=is_too_new and not is_at_least(spec.minimum_tensorrt, "9.0"),
        is_half=options.strongly_typed and spec.precision == "fp16",
        is_free=options.batches is not None,
    )


def write_form(
    artifact: Artifact, spec: EngineSpec, form: Form, *, work: Path
) -> tuple[Path, EngineSpec]:
    """The file that a builder is given, and what the engine is built from then.

    Args:
        artifact: that was checked.
        spec: of its engine, as it is shipped.
        form: of the file.
        work: folder that a file in another form than the shipped one is written to.

    Raises:
        MissingDependencyError: what writes it is not installed here.
        NestedgeError: it has no such form, or that is not its level; see `adapting.adapted`.
    """
    if form == AS_SHIPPED:
        return artifact.model_path, spec
    try:
        # Devices need the package onnx for this alone.
        from nestedge_tensorrt.adapting import adapted
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{artifact.cell}: the model is needed {form}, and {error.name} is missing, which "
            "writes it so: pip install 'nestedge[convert]', or build from another machine by --on"
        ) from error
    found = adapted(artifact, spec, form)
    path = work / "adapted.onnx"
    path.write_bytes(found.content)
    return path, found.spec
