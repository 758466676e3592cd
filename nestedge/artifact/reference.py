"""The inputs of an artifact's reference, and the outputs that its level gives for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from nestedge.artifact.description import REFERENCE_FILE, Artifact
from nestedge.errors import FormatError
from nestedge.plugins import Array


@dataclass(frozen=True)
class Reference:
    """Inputs, and the outputs that the level gives for them, with a leading axis of cases."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def cases(self) -> int:
        """How many there are, at least one."""
        return len(next(iter(self.outputs.values())))

    def case(self, index: int) -> dict[str, Array]:
        """The inputs of one case, as a session takes them."""
        return {name: array[index] for name, array in self.inputs.items()}


def reference_bytes(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> bytes:
    """The content of reference.safetensors.

    Args:
        inputs: by name, each of shape (cases, *shape of the artifact's input).
        outputs: by name, each of shape (cases, *shape of the artifact's output).
    """
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    arrays |= {f"outputs/{name}": array for name, array in outputs.items()}
    # safetensors writes the memory as it lies: a transposed array would be stored wrongly.
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_reference(artifact: Artifact) -> Reference:
    """The reference inputs and outputs of an artifact.

    Raises:
        FormatError: the file is truncated, or its arrays are not those of the artifact.
        OSError: it cannot be read.
    """
    return parse_reference(artifact, (artifact.folder / REFERENCE_FILE).read_bytes())


def parse_reference(artifact: Artifact, content: bytes) -> Reference:
    """The reference in the content of reference.safetensors.

    Raises:
        FormatError: it is truncated, or its arrays are not those of the artifact.
    """
    where = f"{artifact.folder / REFERENCE_FILE}"
    try:
        arrays = safetensors.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        # A dtype that numpy lacks is a KeyError.
        raise FormatError(f"{where}: not safetensors of numpy dtypes: {error}") from error
    parts = (("inputs/", artifact.inputs), ("outputs/", artifact.outputs))
    expected = {prefix + info.name: info for prefix, infos in parts for info in infos}
    if arrays.keys() != expected.keys():
        raise FormatError(f"{where}: expected {sorted(expected)}, found {sorted(arrays)}")
    cases = {array.shape[:1] for array in arrays.values()}
    for name, array in arrays.items():
        info = expected[name]
        if array.shape[1:] != info.shape or array.dtype.name != info.dtype or len(cases) != 1:
            raise FormatError(
                f"{where}: {name}: expected shape (cases, *{info.shape}) and dtype {info.dtype}, "
                f"found {array.shape} and {array.dtype.name}"
            )
    if cases == {(0,)}:
        raise FormatError(f"{where}: expected at least one case, found none")
    inputs, outputs = (
        {info.name: arrays[prefix + info.name] for info in infos} for prefix, infos in parts
    )
    return Reference(inputs, outputs)
