from __future__ import annotations

import re
from pathlib import Path

import pytest

from nestedge.reasons import REASONS, capture_error, code_of, conversion_error

_TABLE = Path(__file__).parents[1] / "docs" / "errors.md"


def test_the_documented_table_is_the_one_in_the_code() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (.+) \|$", _TABLE.read_text(), re.MULTILINE)
    assert rows == [(r.code, r.meaning, r.remedy) for r in REASONS.values()]


@pytest.mark.parametrize("code", list(REASONS))
def test_every_reason_is_a_sentence_and_a_remedy(code: str) -> None:
    reason = REASONS[code]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert reason.meaning.endswith(".")
    assert not reason.remedy.endswith(".")


# What the frameworks say, word for word.
WORDS = {
    "torch.onnx has no function": (
        (
            "DispatchError: No ONNX function found for <OpOverload(op='aten.adaptive_max_pool2d', "
            "overload='default')>. Failure message: No decompositions registered"
        ),
        "unsupported-operator",
    ),
    "torch.onnx has not this form": (
        (
            "ConversionError: Error when translating node\nGraphConstructionError: Error when "
            "calling function\nAssertionError: only 4D query, key, and value are supported"
        ),
        "unsupported-operator",
    ),
    "litert-torch has no lowering": (
        "RuntimeError: Lowering not found: aten.adaptive_max_pool2d.default",
        "unsupported-operator",
    ),
    "litert's compiler and doubles": (
        (
            "ValueError: failed to legalize operation 'tfl.batch_matmul' that was explicitly "
            'marked illegal: %4 = "tfl.batch_matmul"(%arg0) : (tensor<1x8xf64>) -> tensor<1xf64>'
        ),
        "unsupported-dtype",
    ),
    "litert has no kernel": (
        "ValueError: Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'.",
        "refused-by-runtime",
    ),
    "onnxruntime has no kernel": (
        "FormatError: NOT_IMPLEMENTED : Could not find an implementation for Sin(7) node",
        "refused-by-runtime",
    ),
    "protobuf": ("EncodeError: Failed to serialize proto", "file-too-large"),
    "torch's allocator": (
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate",
        "out-of-memory",
    ),
    "python's": ("MemoryError: ", "out-of-memory"),
    "nonzero": (
        "NotImplementedError: The register_meta function for torch.nonzero() raises unimplemented",
        "dynamic-shape",
    ),
    "a lost output": (
        "ValueError: outputs ['output_1_0'] are lost; is one value given under several names?",
        "output-lost",
    ),
    "a name twice": (
        "FormatError: This is an invalid model. Error: Duplicate definition of name (linear)",
        "name-clash",
    ),
    "a word in generated code": (
        "SyntaxError: invalid syntax (<eval_with_key>.128, line 6)",
        "python-word",
    ),
    "one number, too often": (
        "ValueError: INVALID_ARGUMENT: Couldn't convert tensor proto to tensor.",
        "constant-too-large",
    ),
    "litert cannot prepare": (
        "RuntimeError: Node number 10 (STABLEHLO_SCATTER) failed to prepare.",
        "refused-by-runtime",
    ),
    "nobody knows": ("KeyError: ';2'", "quantiser-failed"),
}


@pytest.mark.parametrize(("words", "code"), list(WORDS.values()), ids=list(WORDS))
def test_a_frameworks_words_are_a_sign_of_the_reason(words: str, code: str) -> None:
    assert code_of(words, otherwise="quantiser-failed") == code


def test_a_remedy_that_is_said_already_is_not_said_again() -> None:
    error = conversion_error("nothing-to-quantise", "nothing in it can be quantised; build fp32")
    assert str(error) == "nothing in it can be quantised; build fp32 [nothing-to-quantise]"


def test_an_error_has_the_remedy_of_the_table() -> None:
    for error in (conversion_error("in-place", "x"), capture_error("in-place", "x")):
        assert error.diagnosis.remedy == REASONS["in-place"].remedy
