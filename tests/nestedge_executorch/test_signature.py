from __future__ import annotations

import pytest

from nestedge.errors import FormatError
from nestedge.plugins import TensorInfo
from nestedge_executorch.signature import from_text, to_text


def test_a_signature_is_read_as_it_was_written() -> None:
    inputs = TensorInfo("image", (1, 3, 8, 8), "float32"), TensorInfo("größe", (1,), "int64")
    outputs = (TensorInfo("logits", (1, 4), "float32"),)
    assert from_text(to_text(inputs, outputs), where="x.pte") == (inputs, outputs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.pte: nestedge_signature: "),
        ('{"inputs": []}', "nestedge_signature: outputs: missing"),
        ('{"inputs": [1], "outputs": []}', r"inputs\[0\]: expected .*, found 1"),
    ],
    ids=["empty", "missing", "number"],
)
def test_what_is_no_signature_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        from_text(text, where="x.pte")
