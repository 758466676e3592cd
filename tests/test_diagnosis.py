from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nestedge.convert import LevelProgram, check_size
from nestedge.diagnosis import diagnose, failed
from nestedge.errors import ConversionError, MissingDependencyError, NestedgeError
from nestedge.materialization import level_program
from nestedge.nested import NestedModel, nest
from nestedge.nestfile import load
from nestedge.reasons import conversion_error
from nestedge_onnx.exporter import export_model


class Head(nn.Module):
    """The second of two convolutions, and what torch.onnx has no form of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 4, 3, 3)."""
        return F.adaptive_max_pool2d(self.conv(x) + 1, 3) + 1


class Network(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.head = Head()

    def forward(self, conv2d: torch.Tensor) -> torch.Tensor:
        """An input with the name that torch gives to a convolution."""
        found: torch.Tensor = self.head(self.stem(conv2d))
        return found


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    return nest(Network(), torch.zeros(2, 3, 8, 8), {"full": 1.0})


@pytest.fixture(scope="module")
def level(nested: NestedModel) -> LevelProgram:
    return level_program(nested, "full")


def _pooling() -> int:
    """The line of the operator in this file."""
    lines = Path(__file__).read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if "return F.adaptive" in line)


def test_an_operator_without_a_form_is_named_with_the_users_module_and_line(
    nested: NestedModel, tmp_path: Path
) -> None:
    nested.save(tmp_path / "net.nest")
    with pytest.raises(ConversionError) as caught:
        export_model(level_program(load(tmp_path / "net.nest"), "full"))
    found = caught.value.diagnosis
    assert found.code == "unsupported-operator"
    assert found.operator == "aten.adaptive_max_pool2d.default"
    assert found.source == f"head (Head), test_diagnosis.py:{_pooling()}"
    assert found.said.startswith("torch.onnx cannot export the level: No ONNX function found for")


def _legalisation(operator: str, result: str) -> ValueError:
    return ValueError(
        f"Failed: /home/x/program/emit.py:58:0: error: failed to legalize operation '{operator}' "
        f'that was explicitly marked illegal: %2 = "{operator}"(%1) : (tensor<{result}>) -> '
        f"tensor<{result}>"
    )


COMPILER = {
    "by its shape": ("tfl.add", "1x4x3x3xf32", "unsupported-operator", "aten.add.Tensor"),
    "with another shape": ("tfl.add", "1x4x9x9xf32", "unsupported-operator", "tfl.add"),
    "one of two": ("tfl.conv2d", "1x4x8x8xf32", "unsupported-operator", "tfl.conv2d"),
    "doubles": ("tfl.add", "1x4x3x3xf64", "unsupported-dtype", "aten.add.Tensor"),
    "complex": ("tfl.sin", "1x4xcomplex<f32>", "complex-numbers", "tfl.sin"),
    "dimensions": ("tfl.sin", "1x2x2x2x2x2x2xf32", "too-many-dimensions", "tfl.sin"),
}


@pytest.mark.parametrize(
    ("operator", "result", "code", "named"), list(COMPILER.values()), ids=list(COMPILER)
)
def test_what_a_compiler_cannot_express_is_an_operator_of_the_network_where_one_fits(
    level: LevelProgram, operator: str, result: str, code: str, named: str
) -> None:
    error = _legalisation(operator, result)
    found = failed("it fails", error, level.program, otherwise="unknown").diagnosis
    assert (found.code, found.operator) == (code, named)
    assert found.source.startswith("head (Head), ") == named.startswith("aten")
    assert "/home/x" not in found.said
    assert "emit.py" not in found.said


def test_a_node_of_a_file_is_found_in_the_network(level: LevelProgram) -> None:
    # The input has taken the name of the first convolution.
    error = conversion_error("unparsable-by-tensorrt", "it does not take ('node_conv2d_2')")
    found = diagnose(error, level.program)
    assert found.source.startswith("aten.conv2d.default, head.conv (Conv2d)")


ANY = {
    "a plug-in's own reason": (
        NestedgeError("no such thing"),
        "converter-refused",
        "no such thing",
    ),
    "a missing program": (
        MissingDependencyError("needs onnx2tf"),
        "missing-dependency",
        "needs onnx2tf",
    ),
    "a mistake": (KeyError("scale"), "unknown", "the conversion failed: KeyError: 'scale'"),
    "an empty one": (ValueError(), "unknown", "the conversion failed: ValueError"),
    "memory": (MemoryError(), "out-of-memory", "the conversion failed: MemoryError"),
    "LiteRT's kernel": (
        NestedgeError("Node number 10 (STABLEHLO_SCATTER) failed to prepare."),
        "refused-by-runtime",
        "Node number 10 (STABLEHLO_SCATTER) failed to prepare.",
    ),
}


@pytest.mark.parametrize(("error", "code", "said"), list(ANY.values()), ids=list(ANY))
def test_whatever_is_raised_has_a_code_and_a_remedy(error: Exception, code: str, said: str) -> None:
    found = diagnose(error, None)
    assert (found.code, found.said) == (code, said)
    assert found.remedy


def test_the_first_cause_is_what_is_told() -> None:
    try:
        try:
            raise ValueError("\n\nthe scales are negative\nsee the log")
        except ValueError as error:
            raise RuntimeError("a banner of advice") from error
    except RuntimeError as error:
        found = failed("it fails", error, otherwise="quantiser-failed").diagnosis
    assert found.said == "it fails: the scales are negative"
    assert found.code == "quantiser-failed"


def test_a_level_that_no_protobuf_holds_is_refused_before_it_is_traced(
    level: LevelProgram,
) -> None:
    (weight,) = (name for name in level.tensors if name == "stem.weight")
    # One number, repeated without memory.
    large = torch.zeros(1).expand(2**29)
    with pytest.raises(ConversionError, match=r"an ONNX file holds less than 2,147,483,648 bytes"):
        check_size(
            LevelProgram(level.program, {**level.tensors, weight: large}, {}, {}), "an ONNX file"
        )
    check_size(level, "an ONNX file")
