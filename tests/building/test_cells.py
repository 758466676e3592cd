from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from nestedge.building.cells import CONSTANTS_FILE, level_hashes
from nestedge.cli import main
from nestedge.cost import count_macs, count_parameters, peak_activation_bytes
from nestedge.errors import IntegrityError, NestedgeError
from nestedge.levels import Level
from nestedge.materialization import level_program
from nestedge.nested import Card
from nestedge.preprocessing import Preprocessing
from nestedge.verify import verify_folder
from tests import networks
from tests.builds import build_here
from tests.conversions import nested_resnet
from tests.fakes import declare_plugins

CELL = "small/onnx-fp32"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels for onnxruntime."""
    folder = tmp_path_factory.mktemp("built")
    build_here(nested_resnet(), folder, levels=("small", "medium"))
    return folder


@pytest.fixture
def dist(built: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "dist"))


def _negate_a_class(model: Path) -> None:
    """Change the sign of the last layer's first output channel, weights and bias."""
    graph = onnx.load(model)
    initializers = {item.name: item for item in graph.graph.initializer}
    (output,) = graph.graph.output
    last = next(node for node in graph.graph.node if output.name in node.output)
    assert last.op_type == "Gemm"
    for name in last.input[1:]:
        array = numpy_helper.to_array(initializers[name]).copy()
        array[0] = -array[0]
        initializers[name].CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(graph, model)


def _rewrite_hash(artifact: Path, file: str) -> None:
    path = artifact / "artifact.json"
    description = json.loads(path.read_text())
    content = (artifact / file).read_bytes()
    description["files"][file] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    path.write_text(json.dumps(description))


def test_what_is_built_is_verified_and_its_weights_are_explained(tmp_path: Path) -> None:
    nested = nested_resnet()
    artifacts = build_here(nested, tmp_path, targets=("onnx", "tflite"), levels=("small",))
    assert [artifact.cell for artifact in artifacts] == [CELL, "small/tflite-fp32"]
    results = verify_folder(tmp_path)
    assert [result.cell for result in results] == [artifact.cell for artifact in artifacts]
    assert all(result.passed for result in results)
    assert max(result.max_error for result in results) <= 1e-5
    program = level_program(nested, "small").program
    for artifact in artifacts:
        assert artifact.macs == count_macs(program)
        written = json.loads((artifact.folder / CONSTANTS_FILE).read_text())["constants"]
        floats = [c for c in written if c["dtype"] == "float32" and c["bytes"] > 4]
        assert floats
        assert all(constant["expression"] for constant in floats)


def test_peak_memory_is_that_of_the_precision(tmp_path: Path) -> None:
    nested = nested_resnet()
    full, half = build_here(nested, tmp_path, levels=("small",), precisions=("fp32", "fp16"))
    assert full.peak_memory_bytes == 2 * half.peak_memory_bytes
    program = level_program(nested, "small").program
    weights = 4 * count_parameters(program)
    # Batch norms are gone: their four numbers a channel have become at most one bias.
    assert weights / 2 < full.peak_memory_bytes - peak_activation_bytes(program) < weights


def test_an_output_channel_turned_round_fails_verification_by_its_cell(dist: Path) -> None:
    artifact = dist / CELL
    _negate_a_class(artifact / "model.onnx")
    _rewrite_hash(artifact, "model.onnx")
    passed = {result.cell: result.passed for result in verify_folder(dist)}
    assert passed == {CELL: False, "medium/onnx-fp32": True}
    result = CliRunner().invoke(main, ["verify", str(dist)])
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: 1 of 2 failed: {CELL}: error ")


def test_the_same_with_its_old_hash_is_refused_before_anything_runs(dist: Path) -> None:
    _negate_a_class(dist / CELL / "model.onnx")
    with pytest.raises(IntegrityError, match=rf"{CELL}: model\.onnx: expected sha256"):
        verify_folder(dist)
    result = CliRunner().invoke(main, ["verify", str(dist)])
    assert result.exit_code == 6
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {CELL}: model.onnx: expected sha256 ")


def test_a_converter_that_misplaces_a_constant_makes_no_artifact(
    site: Path, tmp_path: Path
) -> None:
    entry = "tests.conversions:MisplacingConverter"
    declare_plugins(site, group="nestedge.converters", entries={"misplacing": entry})
    with pytest.raises(NestedgeError, match=r"small/onnx-fp32: constants .* are not what their"):
        build_here(nested_resnet(), tmp_path / "dist", targets=("misplacing",), levels=("small",))
    assert not (tmp_path / "dist").exists()


def test_the_hash_of_a_level_changes_with_what_it_is_made_of_and_nothing_else() -> None:
    nested = networks.nested_perceptron()
    before = level_hashes(nested)
    assert list(before) == list(nested.levels)
    assert len(set(before.values())) == len(before)
    assert level_hashes(networks.nested_perceptron()) == before
    nested.add_level("other", Level(0.5))
    after = level_hashes(nested)
    assert {level: after[level] for level in before} == before
    with torch.no_grad():
        nested.shared.get_parameter("last.bias").add_(1)
    assert not set(level_hashes(nested).values()) & set(after.values())


def test_the_hash_of_a_level_with_batch_norms_knows_its_own() -> None:
    nested = nested_resnet()
    before = level_hashes(nested)
    with torch.no_grad():
        next(iter(nested.own_tensors("small").values())).add_(1)
    after = level_hashes(nested)
    assert after["small"] != before["small"]
    assert after["medium"] == before["medium"]


def test_the_hash_of_a_level_knows_its_card() -> None:
    steps = Preprocessing("x", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    cards = [
        Card(divisor=4),
        Card(divisor=4, labels=("a", "b")),
        Card(divisor=4, preprocessing=steps),
    ]
    hashes = [level_hashes(networks.nested_resnet(card=card))["small"] for card in cards]
    assert len(set(hashes)) == 3
