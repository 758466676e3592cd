from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.convert import BuildSpec, Converted, LevelProgram
from nestedge.documents import parse_json
from nestedge.errors import NestedgeError
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.converter import TensorrtConverter
from nestedge_tensorrt.engine import ENGINE_FILE, EngineSpec
from tests.conversions import CASES, Case, spec_of

LAYERS = {"Conv", "Gemm", "MatMul"}
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Made:
    """A level and what the converter made of it."""

    case: Case
    files: dict[str, Converted]

    def graph(self, precision: str) -> onnx.GraphProto:
        """The graph of a model file."""
        return onnx.load_from_string(self.files[precision].model).graph

    def engine(self, precision: str) -> EngineSpec:
        """What the engine.json of a precision says."""
        return _engine(self.files[precision])


def _engine(made: Converted) -> EngineSpec:
    return EngineSpec.from_json(parse_json(made.files[ENGINE_FILE], document=ENGINE_FILE))


def _made(case: Case) -> Made:
    exported = TensorrtConverter().export(case.level)
    return Made(case, {name: exported.convert(spec_of(case, name)) for name in PRECISIONS})


@pytest.fixture(scope="module")
def both() -> dict[str, Made]:
    return {name: _made(case()) for name, case in CASES.items()}


@pytest.fixture(params=list(CASES))
def made(request: pytest.FixtureRequest, both: dict[str, Made]) -> Made:
    return both[request.param]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_is_one_that_the_parser_of_jetpack_5_knows(made: Made, precision: str) -> None:
    model = onnx.load_from_string(made.files[precision].model)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    assert model.ir_version == 8


def test_fp16_is_the_file_of_fp32(made: Made) -> None:
    assert made.files["fp16"].model == made.files["fp32"].model
    assert made.files["fp16"].files != made.files["fp32"].files


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_json_describes_the_file_beside_it(made: Made, precision: str) -> None:
    file, engine = made.files[precision], made.engine(precision)
    assert list(file.files) == [ENGINE_FILE]
    assert engine.precision == precision
    assert engine.model_sha256 == hashlib.sha256(file.model).hexdigest()
    assert engine.inputs == file.inputs
    assert engine.outputs == file.outputs
    assert engine.batch == 1
    assert engine.calibration_cases == (16 if precision == "int8" else None)


def test_engine_json_names_the_first_tensorrt_that_parses_the_file(both: dict[str, Made]) -> None:
    versions = {name: made.engine("int8").minimum_tensorrt for name, made in both.items()}
    # TensorRT 8.5 has no LayerNormalization, which one of them needs.
    assert versions == {"resnet": "8.5", "mixed": "8.6", "fine": "8.5"}


def test_a_batch_is_in_every_shape(both: dict[str, Made]) -> None:
    made = TensorrtConverter().export(both["resnet"].case.level, batch=3).convert(BuildSpec())
    engine = _engine(made)
    assert engine.batch == 3
    assert [info.shape[0] for info in (*engine.inputs, *engine.outputs)] == [3, 3]


def _arrays(graph: onnx.GraphProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def _quantizers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert nodes
    return nodes


def _dequantized(graph: onnx.GraphProto) -> set[str]:
    nodes = (node for node in graph.node if node.op_type == "DequantizeLinear")
    return {name for node in nodes for name in node.output}


def _layers(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = [node for node in graph.node if node.op_type in LAYERS]
    assert nodes
    return nodes


def _axis(node: onnx.NodeProto) -> int:
    return next(int(item.i) for item in node.attribute if item.name == "axis")


def test_every_scale_is_positive_and_every_zero_point_is_zero(made: Made) -> None:
    graph = made.graph("int8")
    arrays = _arrays(graph)
    for node in _quantizers(graph):
        # TensorRT 8.5 wants all three inputs.
        _, scale, zero_point = node.input
        assert arrays[scale].dtype == np.float32
        assert (arrays[scale] > 0).all()
        assert arrays[zero_point].dtype == np.int8
        assert not arrays[zero_point].any()
        assert arrays[zero_point].shape == arrays[scale].shape


def test_only_zero_points_are_constants_of_8_bits(made: Made) -> None:
    graph = made.graph("int8")
    zero_points = {node.input[2] for node in _quantizers(graph)}
    kinds = {item.data_type for item in graph.initializer if item.name not in zero_points}
    assert kinds <= {TensorProto.FLOAT, TensorProto.INT64}


def test_every_layer_reads_pairs_and_its_bias_as_it_is(made: Made) -> None:
    graph = made.graph("int8")
    arrays, dequantized = _arrays(graph), _dequantized(graph)
    for node in _layers(graph):
        data, weight, *bias = node.input
        assert {data, weight} <= dequantized
        assert all(arrays[name].dtype == np.float32 for name in bias)


def test_only_what_a_layer_reads_has_pairs(made: Made) -> None:
    graph = made.graph("int8")
    producers = {name: node for node in graph.node for name in node.output}

    def source(name: str) -> str:
        return str(producers[producers[name].input[0]].input[0])

    read = {source(name) for layer in _layers(graph) for name in layer.input[:2]}
    quantised = {n.input[0] for n in _quantizers(graph) if n.op_type == "QuantizeLinear"}
    assert quantised == read
    assert not _dequantized(graph) & {output.name for output in graph.output}


def test_weights_have_a_scale_for_each_output_channel(made: Made) -> None:
    graph = made.graph("int8")
    arrays = _arrays(graph)
    producers = {name: node for node in graph.node for name in node.output}
    for layer in _layers(graph):
        dequantize = producers[layer.input[1]]
        quantize = producers[dequantize.input[0]]
        weight, scale, _ = quantize.input
        if weight not in arrays:  # attention multiplies two values
            continue
        transposed = any(item.name == "transB" and item.i for item in layer.attribute)
        axis = 0 if layer.op_type == "Conv" or transposed else 1
        assert _axis(quantize) == _axis(dequantize) == axis
        assert list(dequantize.input)[1:] == list(quantize.input)[1:]
        # Whole steps from zero, no more than 127: the whole network's largest weight is there.
        shape = [-1 if dim == axis else 1 for dim in range(arrays[weight].ndim)]
        steps = arrays[weight] / arrays[scale].reshape(shape)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert np.abs(steps).max() < 127.5


def _level(model: nn.Module, *inputs: torch.Tensor) -> LevelProgram:
    redraw(model, seed=0)
    return fold_batch_norms(level_program(nest(model, inputs, {"full": 1.0}), "full"))


def test_a_channel_without_weights_has_a_positive_scale_too() -> None:
    level = _level(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 6, 6))
    weight = next(name for name, tensor in level.tensors.items() if tensor.ndim == 4)
    level.tensors[weight][2] = 0
    images = np.random.default_rng(0).standard_normal((4, 1, 3, 6, 6)).astype(np.float32)
    calibration = {spec.name: images for spec in level.program.inputs}
    made = TensorrtConverter().export(level).convert(BuildSpec("int8", calibration))
    arrays = _arrays(onnx.load_from_string(made.model).graph)
    scales = [array for name, array in arrays.items() if array.shape == (8,) and "scale" in name]
    assert len(scales) == 1
    assert (scales[0] > 0).all()


def test_sparse_kernels_are_asked_for_only_where_the_level_has_the_pattern() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    level = _level(layers, torch.zeros(1, 3, 6, 6))
    assert not _engine(TensorrtConverter().export(level).convert(BuildSpec())).options.sparsity
    weight = next(name for name, tensor in level.tensors.items() if tensor.shape[:2] == (8, 8))
    level.tensors[weight][:, [0, 2, 5, 7]] = 0
    exported = TensorrtConverter().export(level)
    assert _engine(exported.convert(BuildSpec())).options.sparsity
    images = np.random.default_rng(0).standard_normal((4, 1, 3, 6, 6)).astype(np.float32)
    calibration = {spec.name: images for spec in level.program.inputs}
    assert _engine(exported.convert(BuildSpec("int8", calibration))).options.sparsity


class Tokens(nn.Module):
    """Whole numbers in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 4)."""
        logits: torch.Tensor = self.head(self.embedding(tokens).mean(1))
        return logits


def test_an_input_of_int64_needs_tensorrt_10() -> None:
    level = _level(Tokens(), torch.arange(5)[None])
    engine = _engine(TensorrtConverter().export(level).convert(BuildSpec()))
    assert engine.inputs == (TensorInfo("tokens", (1, 5), "int64"),)
    assert engine.minimum_tensorrt == "10.0"


def test_an_operator_that_tensorrt_lacks_is_named() -> None:
    level = _level(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Mish()), torch.zeros(1, 3, 6, 6))
    with pytest.raises(NestedgeError, match="TensorRT cannot parse Mish"):
        TensorrtConverter().export(level)


class Folded(nn.Module):
    """A view of nine dimensions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 3, 8, 8)."""
        parts = x.reshape(x.shape[0], 3, 2, 2, 2, 2, 2, 2, 1).permute(0, 1, 4, 2, 3, 5, 6, 7, 8)
        return parts.reshape(x.shape)


def test_a_tensor_of_nine_dimensions_is_refused_before_the_device_does() -> None:
    level = _level(nn.Sequential(nn.Conv2d(3, 3, 1), Folded()), torch.zeros(1, 3, 8, 8))
    with pytest.raises(NestedgeError, match=r"at most 8 dimensions; .* of Reshape .* has 9"):
        TensorrtConverter().export(level)
