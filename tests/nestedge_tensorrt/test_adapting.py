from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestedge.artifact import Artifact, reference_bytes, write_artifact
from nestedge.errors import ConversionError, UsageError, VerificationError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.adapting import adapted
from nestedge_tensorrt.engine import EngineSpec
from nestedge_tensorrt.forms import Form
from tests.fakes import DESCRIPTION
from tests.nestedge_tensorrt.devices import make_cell, real_model
from tests.nestedge_tensorrt.graphs import numbers, outputs_of, shipped_model
from tests.nestedge_tensorrt.networks import NETWORKS, shipped


def _cell(folder: Path, model: onnx.ModelProto, *, tolerance: float = 1e-5) -> Artifact:
    """An artifact of a model of one sample, whose reference it computes itself."""
    inputs = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input
    }
    cases = [
        {name: numbers(*shape, seed=seed) for name, shape in inputs.items()} for seed in range(4)
    ]
    found = [outputs_of(model, case) for case in cases]
    outputs = {
        value.name: np.stack([arrays[index] for arrays in found])
        for index, value in enumerate(model.graph.output)
    }
    given = {name: np.stack([case[name] for case in cases]) for name in inputs}
    description = replace(
        DESCRIPTION,
        runtime="tensorrt",
        checked_by="onnx",
        model="model.onnx",
        inputs=tuple(TensorInfo(n, tuple(shape), "float32") for n, shape in inputs.items()),
        outputs=tuple(TensorInfo(n, array.shape[1:], "float32") for n, array in outputs.items()),
        preprocessing=None,
        labels=None,
        tolerance=tolerance,
    )
    files = {
        "model.onnx": model.SerializeToString(),
        "reference.safetensors": reference_bytes(given, outputs),
    }
    return write_artifact(folder, description, files=files)


def _spec(artifact: Artifact, *, precision: str = "fp32", batch: int = 1) -> EngineSpec:
    return EngineSpec(
        precision=precision,
        model_sha256=artifact.files["model.onnx"].sha256,
        opset=17,
        minimum_tensorrt="8.6",
        batch=batch,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        calibration_cases=None,
    )


def test_an_old_form_is_built_by_older_versions(tmp_path: Path) -> None:
    artifact = _cell(tmp_path, onnx.load_from_string(shipped("newer", "fp32")[1]))
    found = adapted(artifact, _spec(artifact), Form(is_old=True))
    assert (found.spec.minimum_tensorrt, found.spec.opset) == ("8.2", 13)
    assert onnx.load_from_string(found.content).opset_import[0].version == 13
    assert adapted(artifact, _spec(artifact), Form(is_old=True)) == found


@pytest.mark.parametrize("name", NETWORKS)
def test_a_half_form_computes_in_half_precision_between_floats(name: str, tmp_path: Path) -> None:
    # Weights are drawn anew, not trained, and errors of rounding are larger then.
    artifact = _cell(tmp_path, onnx.load_from_string(shipped(name, "fp16")[1]), tolerance=5e-3)
    found = adapted(artifact, _spec(artifact, precision="fp16"), Form(is_half=True))
    graph = onnx.load_from_string(found.content).graph
    onnx.checker.check_model(onnx.load_from_string(found.content), full_check=True)
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds == {TensorProto.FLOAT}
    weights = {item.name: item for item in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert layers
    assert {weights[node.input[1]].data_type for node in layers} == {TensorProto.FLOAT16}
    assert found.spec.minimum_tensorrt == "8.6"


def test_a_free_form_has_a_batch_of_any_size(tmp_path: Path) -> None:
    artifact = make_cell(tmp_path, model=real_model())
    found = adapted(artifact, _spec(artifact), Form(is_old=True, is_free=True))
    graph = onnx.load_from_string(found.content).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_samples_that_are_computed_from_each_other_are_found_out(tmp_path: Path) -> None:
    # Its shapes grow with the batch, as if each sample were computed by itself.
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    artifact = _cell(tmp_path, shipped_model([node], {}, shape=(1, 4)))
    with pytest.raises(
        VerificationError,
        match=r"^small/tensorrt-fp32: the model for batches of any size is not its level: "
        r"output 'y': error .* is above 1e-05$",
    ):
        adapted(artifact, _spec(artifact), Form(is_free=True))


def test_a_form_with_other_weights_is_found_out(tmp_path: Path) -> None:
    artifact = make_cell(tmp_path, model=_other_weights())
    with pytest.raises(VerificationError, match="the model in opset 13 is not its level"):
        adapted(artifact, _spec(artifact), Form(is_old=True))


def _other_weights() -> bytes:
    model = onnx.load_from_string(real_model())
    weight = next(item for item in model.graph.initializer if item.name == "w")
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(array * np.float32(1.01), "w"))
    content: bytes = model.SerializeToString()
    return content


def test_what_has_no_such_form_is_refused_with_its_reason(tmp_path: Path) -> None:
    node = helper.make_node("Trilu", ["x"], ["y"], "the_mask")
    artifact = _cell(tmp_path, shipped_model([node], {}, shape=(1, 4, 4)))
    with pytest.raises(ConversionError, match="Trilu") as caught:
        adapted(artifact, _spec(artifact), Form(is_old=True))
    assert caught.value.diagnosis.code == "unparsable-by-tensorrt"


def test_what_runs_for_one_sample_alone_is_refused_with_its_reason(tmp_path: Path) -> None:
    # Shape inference does not look at the lengths of sequences, one for each sample.
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "v", "", "n"], ["", "last"], hidden_size=2),
        helper.make_node("Transpose", ["last"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {"w": numbers(1, 6, 4), "v": numbers(1, 6, 2), "n": np.array([3], np.int32)}
    artifact = _cell(tmp_path, shipped_model(nodes, constants, shape=(1, 3, 4)))
    with pytest.raises(
        ConversionError, match=r"for batches of any size does not run: .*GRU"
    ) as found:
        adapted(artifact, _spec(artifact), Form(is_free=True))
    assert found.value.diagnosis.code == "fixed-batch"


def test_an_artifact_of_several_samples_is_for_its_own_batch_alone(tmp_path: Path) -> None:
    artifact = make_cell(tmp_path, model=real_model())
    with pytest.raises(UsageError, match="a model for one sample, and this one is for 3"):
        adapted(artifact, _spec(artifact, batch=3), Form(is_free=True))
