"""What a file takes and gives, by name: a method of the file says it, as .pte has only numbers.

Any program that runs the file can call that method, in whatever language.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from nestedge.artifact import tensor_to_json, tensors_from_json
from nestedge.documents import parse_json
from nestedge.plugins import TensorInfo

METHOD = "nestedge_signature"
"""Takes nothing, gives one string of JSON."""


def to_text(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> str:
    """What the method gives: inputs and outputs in the order in which the file has them."""
    parts = {"inputs": inputs, "outputs": outputs}
    return json.dumps({key: [tensor_to_json(info) for info in parts[key]] for key in parts})


def from_text(text: str, *, where: str) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """The inputs and outputs in what the method gave.

    Args:
        text: that.
        where: the file, for messages.

    Raises:
        FormatError: it is not what `to_text` writes.
    """
    document = parse_json(text.encode(), document=f"{where}: {METHOD}")
    inputs, outputs = document.fields("inputs", "outputs")
    return tensors_from_json(inputs), tensors_from_json(outputs)
