from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestedge.errors import FormatError, PlacementError, UsageError
from nestedge.placement import Operator
from nestedge.placement.description import counted
from nestedge_onnx.placement import ProfiledNode, compared, macs_of
from nestedge_onnx.runtime import OnnxRuntime

CPU = "CPUExecutionProvider"


def _write(path: Path) -> Path:
    """A convolution with its bias in a node of its own, which onnxruntime joins, and a head."""
    weights = {"kernel": (16, 3, 3, 3), "bias": (1, 16, 1, 1), "head": (4, 16)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "bias"], ["b"], name="add"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("Gemm", ["d", "head"], ["y"], name="gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return path


def test_the_cpu_runs_everything(tmp_path: Path) -> None:
    placement = OnnxRuntime().placement(_write(tmp_path / "model.onnx"))
    assert placement.accelerator == CPU
    assert (placement.share, placement.unit, placement.partitions) == (1.0, "MACs", 1)
    macs = {operator.kind: operator.macs for operator in placement.operators}
    assert macs == {"Conv": 64 * 16 * 27, "GlobalAveragePool": 0, "Flatten": 0, "Gemm": 64}
    assert placement.source.startswith("onnxruntime 1.")


def test_the_operators_of_the_file_have_its_names(tmp_path: Path) -> None:
    found = OnnxRuntime().operators(_write(tmp_path / "model.onnx"))
    assert [operator.name for operator in found] == ["conv", "add", "pool", "flat", "gemm"]
    assert [operator.macs for operator in found] == [27648, 0, 0, 0, 64]


def test_weights_that_a_kernel_packs_count(tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["x", "kernel"], ["y"], name="up", strides=[2, 2])
    graph = helper.make_graph(
        [node],
        "up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 8, 8])],
        [numpy_helper.from_array(np.ones((3, 6, 2, 2), np.float32), "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    placement = OnnxRuntime().placement(tmp_path / "model.onnx")
    assert [operator.macs for operator in placement.operators] == [48 * 24]


def test_no_profile_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "model.onnx")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    OnnxRuntime().placement(path)
    assert list(tmp_path.iterdir()) == [path]


def _node(kind: str, name: str, macs: int, provider: str) -> ProfiledNode:
    return ProfiledNode(Operator(kind, name, macs), provider)


def test_what_did_not_run_by_itself_was_compiled_by_the_provider() -> None:
    alone = [
        _node("Conv", "conv", 900, CPU),
        _node("Hardmax", "odd", 0, CPU),
        _node("Gemm", "head", 100, CPU),
    ]
    # As onnxruntime-openvino 1.24 profiles them.
    together = [
        _node("OpenVINO-EP-subgraph_1", "OpenVINO-EP-subgraph_1_0", 0, "OpenVINO"),
        _node("Hardmax", "odd", 0, CPU),
        _node("OpenVINO-EP-subgraph_2", "OpenVINO-EP-subgraph_2_1", 0, "OpenVINO"),
    ]
    placement = compared(alone, together, accelerator="OpenVINO", source="a test")
    assert [operator.where for operator in placement.operators] == ["OpenVINO", CPU, "OpenVINO"]
    assert (placement.share, placement.partitions) == (1.0, 2)
    together[2] = _node("Gemm", "head", 100, CPU)
    placement = compared(alone, together, accelerator="OpenVINO", source="a test")
    assert (placement.share, placement.partitions) == (0.9, 1)


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="onnxruntime was built without it",
)
def test_a_provider_that_takes_nothing_has_a_share_of_0(tmp_path: Path) -> None:
    # It runs operators of its own domain only.
    path = _write(tmp_path / "model.onnx")
    placement = OnnxRuntime().placement(path, accelerator="azure")
    assert (placement.share, placement.partitions) == (0.0, 0)
    assert counted(placement.elsewhere) == "1 Conv, 1 Gemm, 1 GlobalAveragePool, 1 Flatten"


def test_a_provider_that_cannot_start_is_no_placement_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "model.onnx")
    # What onnxruntime does where CUDA's libraries are missing: it warns, and goes on without.
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU]
    )
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(PlacementError, match="could not start CUDAExecutionProvider"),
    ):
        OnnxRuntime().placement(path, accelerator="CUDAExecutionProvider")


def test_a_provider_that_is_not_here_is_told(tmp_path: Path) -> None:
    path = _write(tmp_path / "model.onnx")
    message = "has no provider 'CUDAExecutionProvider' here; it has .*'cpu'"
    with pytest.raises(UsageError, match=message):
        OnnxRuntime().placement(path, accelerator="CUDAExecutionProvider")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match=r"model\.onnx: no such file"):
        OnnxRuntime().placement(path)
    path.write_text("this is no model")
    with pytest.raises(FormatError, match=r"model\.onnx: onnxruntime refuses it"):
        OnnxRuntime().operators(path)


_X, _W = (2, 3, 4, 5), (7, 3, 3, 3)
_SCALES = [(), ()]


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "macs"),
    [
        ("Conv", [(1, 8, 6, 6), (16, 2, 3, 3)], (1, 16, 6, 6), 16 * 36 * 18),
        ("Conv", [(1, 8, 9), (16, 8, 3)], (1, 16, 7), 16 * 7 * 24),
        ("QLinearConv", [(1, 3, 6, 6), *_SCALES, _W, (7,), (7,)], (1, 7, 4, 4), 7 * 16 * 27),
        ("ConvTranspose", [(1, 3, 4, 4), (3, 6, 2, 2)], (1, 6, 8, 8), 48 * 24),
        ("Gemm", [(5, 7), (16, 5), (16,)], (7, 16), 5 * 7 * 16),
        ("QGemm", [(1, 16), *_SCALES, (4, 16), (4,), (4,)], (1, 4), 64),
        ("MatMul", [_X, (2, 3, 5, 6)], (2, 3, 4, 6), 6 * 4 * 5 * 6),
        ("QLinearMatMul", [(1, 64, 16), *_SCALES, (16, 12)], (1, 64, 12), 64 * 16 * 12),
        ("MatMulNBits", [(1, 9, 32), (8, 1, 16)], (1, 9, 8), 9 * 32 * 8),
        ("FusedMatMul", [(2, 5, 4), (2, 5, 6)], (2, 4, 6), 2 * 4 * 5 * 6),
        ("Relu", [_X], _X, 0),
        ("MultiHeadAttention", [_X], _X, None),
        ("LSTM", [_X], _X, None),
        ("Conv", [_X], _X, None),
    ],
)
def test_macs_follow_from_shapes(
    kind: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], macs: int | None
) -> None:
    assert macs_of(kind, inputs, output) == macs


@pytest.mark.parametrize(("batch", "channels"), list(itertools.product([1, 2], [3, 8])))
def test_macs_of_a_transposed_product_are_those_of_the_plain_one(batch: int, channels: int) -> None:
    output = (batch, channels, 5)
    plain = macs_of("MatMul", [(batch, channels, 7), (batch, 7, 5)], output)
    assert macs_of("FusedMatMul", [(batch, 7, channels), (batch, 7, 5)], output) == plain
