from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from nestedge.artifact import Artifact
from nestedge.build import CONSTANTS_FILE, build, convert_level, reference_inputs
from nestedge.cli import main
from nestedge.errors import IntegrityError, NestedgeError, UsageError
from nestedge.verify import relative_error, verify_folder
from nestedge_onnx.runtime import OnnxRuntime
from tests.conversions import nested_resnet
from tests.fakes import declare_plugins

CELL = "small/onnx-fp32"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels for onnxruntime."""
    folder = tmp_path_factory.mktemp("built")
    build(nested_resnet(), folder, targets=("onnx",), levels=("small", "medium"))
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


def test_what_is_built_is_verified(tmp_path: Path) -> None:
    told: list[Artifact] = []
    artifacts = build(nested_resnet(), tmp_path, levels=("small",), after_each=told.append)
    assert told == artifacts
    assert [artifact.cell for artifact in artifacts] == [CELL, "small/tflite-fp32"]
    results = verify_folder(tmp_path)
    assert [result.cell for result in results] == [artifact.cell for artifact in artifacts]
    assert all(result.passed for result in results)
    assert max(result.max_error for result in results) <= 1e-5
    for artifact in artifacts:
        written = json.loads((artifact.folder / CONSTANTS_FILE).read_text())["constants"]
        floats = [c for c in written if c["dtype"] == "float32" and c["bytes"] > 4]
        assert floats
        assert all(constant["expression"] for constant in floats)


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
    with pytest.raises(IntegrityError, match=f"{CELL}: model.onnx: expected sha256"):
        verify_folder(dist)
    result = CliRunner().invoke(main, ["verify", str(dist)])
    assert result.exit_code == 6
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {CELL}: model.onnx: expected sha256 ")


def test_a_plain_file_computes_the_level(tmp_path: Path) -> None:
    nested = nested_resnet()
    path = tmp_path / "small.onnx"
    path.write_bytes(convert_level(nested, "small", "onnx"))
    images = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = OnnxRuntime().open(path).run({"x": images}).values()
    with torch.no_grad(), nested.at("small"):
        expected = nested(torch.from_numpy(images))
    assert relative_error(found, expected.numpy()) <= 1e-5


def test_reference_inputs_are_the_example_and_others() -> None:
    nested = nested_resnet()
    inputs = reference_inputs(nested, cases=3)
    (images,) = inputs.values()
    assert images.shape == (3, 1, 3, 8, 8)
    np.testing.assert_array_equal(images[0], nested.examples["x"].numpy())
    assert len({case.tobytes() for case in images}) == 3
    again = reference_inputs(nested, cases=3)
    np.testing.assert_array_equal(images, again["x"])


def test_an_unknown_level_or_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no level 'smal'"):
        build(nested_resnet(), tmp_path, levels=("smal",), targets=("onnx",))
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        build(nested_resnet(), tmp_path, levels=("small",), targets=("onxx",))
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_misplaces_a_constant_builds_nothing(site: Path, tmp_path: Path) -> None:
    entry = "tests.conversions:MisplacingConverter"
    declare_plugins(site, group="nestedge.converters", entries={"misplacing": entry})
    with pytest.raises(NestedgeError, match=r"small/onnx-fp32: constants .* are not what their"):
        build(nested_resnet(), tmp_path / "dist", targets=("misplacing",), levels=("small",))
    assert not (tmp_path / "dist").exists()
