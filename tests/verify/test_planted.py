"""Errors planted in files of real converters, found in real runtimes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.artifact import Artifact, find_artifacts
from nestedge.building.values import level_values
from nestedge.errors import UsageError
from nestedge.model import NestedModel
from nestedge.nested import Card, nest
from nestedge.plugins import Array, load_runtime
from nestedge.verify import localise, relative_error, verify_artifact
from nestedge.verify.localisation import Network
from tests.builds import build_here
from tests.verify.planting import copied, with_wrong_weight

_LAYERS = ("stem", "block.conv", "head")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + 4 * torch.relu(self.norm(self.conv(x)))


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = _Block()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(torch.relu(self.stem(x))).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    """A small network with a level of half the width."""
    model = _Small()
    redraw(model, seed=0)
    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return nest(model, images[:1], {"half": 0.5}, card=Card(divisor=2), calibration=images)


@pytest.fixture(scope="module")
def built(nested: NestedModel, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Artifact]:
    """Its level "half" for two runtimes in two precisions, by runtime and precision."""
    folder = tmp_path_factory.mktemp("dist")
    precisions = ("fp32", "int8")
    build_here(nested, folder, targets=("onnx", "tflite"), levels=("half",), precisions=precisions)
    return {artifact.cell.removeprefix("half/"): artifact for artifact in find_artifacts(folder)}


@pytest.fixture
def network(nested: NestedModel) -> Network:
    """The network, run by torch."""
    return lambda level, inputs: level_values(nested, level, inputs)


@pytest.mark.parametrize("module", _LAYERS)
@pytest.mark.parametrize(
    ("cell", "kinds"),
    [
        ("onnx-fp32", {"Conv", "Gemm"}),
        ("onnx-int8", {"Conv", "Gemm"}),
        ("tflite-fp32", {"CONV_2D", "FULLY_CONNECTED"}),
        ("tflite-int8", {"CONV_2D", "FULLY_CONNECTED"}),
    ],
)
def test_the_layer_with_a_wrong_weight_is_named(
    built: Mapping[str, Artifact],
    network: Network,
    tmp_path: Path,
    *,
    cell: str,
    kinds: set[str],
    module: str,
) -> None:
    right = built[cell]
    runtime = load_runtime(right.runtime)
    exact = copied(built[f"{right.runtime}-fp32"], tmp_path)
    wrong = with_wrong_weight(right, module, tmp_path)
    assert not verify_artifact(wrong, runtime).passed
    found = localise(wrong, runtime, network=network)
    assert found.operator is not None
    assert found.operator.module == module
    assert found.operator.kind in kinds
    assert found.operator.output_error > right.tolerance > 3 * found.operator.input_error
    is_exact = right.precision == "fp32"
    assert found.reference == ("the network, run by torch" if is_exact else exact.cell)


@pytest.mark.parametrize("cell", ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"])
def test_no_operator_of_a_right_file_is_far_off(
    built: Mapping[str, Artifact], network: Network, cell: str
) -> None:
    artifact = built[cell]
    runtime = load_runtime(artifact.runtime)
    assert verify_artifact(artifact, runtime).passed
    found = localise(artifact, runtime, network=network)
    assert found.operator is not None
    assert found.operator.output_error <= artifact.tolerance
    # Most values have a counterpart, or little would be said by that.
    assert found.compared > 0.7 * found.values


def test_the_values_of_a_level_are_those_of_the_level(
    nested: NestedModel, built: Mapping[str, Artifact]
) -> None:
    x: Array = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
    (name,) = (info.name for info in built["onnx-fp32"].inputs)
    trace = level_values(nested, "half", {name: x})
    with torch.no_grad(), nested.at("half"):
        expected = nested(torch.tensor(x)).numpy()
    (output,) = trace.outputs.values()
    assert relative_error(trace.values[output], expected) < 1e-5
    assert {"stem", "block.conv", "head"} <= {found.module for found in trace.operators}
    last = level_values(nested, "half", {name: np.moveaxis(x, 1, -1)})
    assert np.array_equal(last.values[output], trace.values[output])
    with pytest.raises(ValueError, match=r"expected an input of shape \(1, 3, 6, 6\), found"):
        level_values(nested, "half", {name: x[:, :, :5]})
    with pytest.raises(UsageError, match="no level 'quarter'"):
        level_values(nested, "quarter", {name: x})


def test_verifying_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, nestedge.verify, nestedge.cli.verify, nestedge_onnx.runtime; "
        "print({'torch', 'onnx'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
