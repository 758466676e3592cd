from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.vit import VisionTransformer
from nestedge.building.reference import reference_inputs
from nestedge.convert import BuildSpec
from nestedge.errors import NestedgeError
from nestedge.explanation import check_constants
from nestedge.expressions import Array
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.verify import relative_error
from nestedge_tflite.converter import TfliteConverter
from nestedge_tflite.flatbuffer import constants, signature
from nestedge_tflite.quantization import quantize, to_half
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import cosine, mixed_case, resnet_case, unexplained

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items()}


@cache
def _resnet() -> tuple[bytes, dict[str, Array]]:
    """A convolutional network in single precision, and calibration data."""
    case = resnet_case()
    model = TfliteConverter().export(case.level).convert(BuildSpec()).model
    return model, dict(case.calibration)


@cache
def _mixed() -> tuple[bytes, dict[str, Array]]:
    """A network with a layer norm in single precision, and calibration data."""
    case = mixed_case()
    model = TfliteConverter().export(case.level).convert(BuildSpec()).model
    return model, dict(case.calibration)


def _operators(content: bytes) -> Counter[tuple[str, int]]:
    """How many operators there are of every kind, with the type of their first output."""
    model: Any = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    found: Counter[tuple[str, int]] = Counter()
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        name = _NAMES[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
        found[name, graph.Tensors(operator.Outputs(0)).Type()] += 1
    return found


def test_a_convolutional_network_computes_in_8_bits_from_end_to_end() -> None:
    model, calibration = _resnet()
    found = _operators(quantize(model, calibration))
    assert found.pop(("QUANTIZE", schema.TensorType.INT8)) == 1
    assert found.pop(("DEQUANTIZE", schema.TensorType.FLOAT32)) == 1
    # What moves the channels of the input to the back may stand before or after its quantisation.
    found.pop(("TRANSPOSE", schema.TensorType.FLOAT32), None)
    assert {kind for _, kind in found} == {schema.TensorType.INT8}


def test_beside_a_layer_norm_only_layers_compute_in_8_bits() -> None:
    model, calibration = _mixed()
    found = _operators(quantize(model, calibration))
    in_8_bits = {name for name, kind in found if kind == schema.TensorType.INT8}
    assert in_8_bits == {"QUANTIZE", "CONV_2D", "FULLY_CONNECTED"}


def test_a_vision_transformer_is_not_ruined(tmp_path: Path) -> None:
    network = VisionTransformer(2, 2, embedding=32)
    redraw(network, seed=0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 1, 3, 32, 32, generator=generator)
    level = level_program(nest(network.eval(), images[0], {"full": 1.0}), "full")
    exported = TfliteConverter().export(level)
    found = {}
    for spec in (BuildSpec(), BuildSpec("int8", {"x": images.numpy()})):
        path = tmp_path / spec.precision
        path.write_bytes(exported.convert(spec).model)
        session = LiteRtRuntime().open(path)
        outputs = [session.run({"x": image})["output"] for image in images.numpy()]
        found[spec.precision] = np.stack(outputs)
    assert cosine(found["int8"], found["fp32"]) > 0.999
    assert ("FULLY_CONNECTED", schema.TensorType.INT8) in _operators(path.read_bytes())


def test_half_precision_keeps_the_operators() -> None:
    model, _ = _resnet()
    before, after = _operators(model), _operators(to_half(model))
    casts = after.pop(("DEQUANTIZE", schema.TensorType.FLOAT32))
    assert after == before
    layers = sum(count for (name, _), count in after.items() if name in ("CONV_2D",))
    assert casts == layers + after["FULLY_CONNECTED", schema.TensorType.FLOAT32]


def test_ranges_do_not_depend_on_the_order_of_cases() -> None:
    model, calibration = _resnet()
    backwards = {name: array[::-1] for name, array in calibration.items()}
    assert quantize(model, backwards) == quantize(model, calibration)


def test_every_case_counts_for_the_ranges() -> None:
    model, calibration = _resnet()
    wider = {name: np.concatenate([array, 3 * array[:1]]) for name, array in calibration.items()}
    assert quantize(model, wider) != quantize(model, calibration)


def test_constants_behind_the_flatbuffer_are_found() -> None:
    # ai-edge-quantizer puts them there from a quarter of a megabyte.
    network = nn.Sequential(nn.Linear(16, 1024), nn.ReLU(), nn.Linear(1024, 512))
    redraw(network, seed=0)
    example = torch.zeros(1, 16)
    level = level_program(nest(network, example, {"full": 1.0}), "full")
    made = TfliteConverter().export(level).convert(BuildSpec("fp16"))
    largest = max(made.constants, key=lambda constant: constant.size_bytes)
    assert largest.size_bytes == 2 * 1024 * 512
    assert unexplained(made) == []
    assert check_constants(made.constants, made.model, level.stored) == []


@pytest.mark.parametrize(
    "calibration",
    [{"y": np.zeros((1, 1, 3, 8, 8), np.float32)}, {"x": np.zeros((1, 1, 3, 8, 8), np.int64)}],
    ids=["another name", "another dtype"],
)
def test_what_cannot_be_quantised_is_one_line(calibration: dict[str, Array]) -> None:
    with pytest.raises(
        NestedgeError, match="ai-edge-quantizer cannot make int8 of the level: "
    ) as caught:
        quantize(_resnet()[0], calibration)
    assert "\n" not in str(caught.value)


def _small(network: nn.Module, *inputs: torch.Tensor) -> tuple[bytes, dict[str, Array]]:
    """A small network in single precision, and cases to calibrate with and to compare."""
    nested = nest(network.eval(), inputs, {"full": 1.0})
    exported = TfliteConverter().export(level_program(nested, "full"))
    cases = reference_inputs(nested, cases=8, seed=2)
    return exported.convert(BuildSpec()).model, cases


def _error(model: bytes, cases: dict[str, Array], folder: Path) -> float:
    """How far a network in 8 bits is from itself in single precision."""
    found = {}
    for name, content in (("fp32", model), ("int8", quantize(model, cases))):
        path = folder / name
        path.write_bytes(content)
        session = LiteRtRuntime().open(path)
        runs = [
            session.run({key: array[i] for key, array in cases.items()})
            for i in range(len(next(iter(cases.values()))))
        ]
        found[name] = np.stack([next(iter(run.values())) for run in runs])
    return relative_error(found["int8"], found["fp32"])


IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("share", [0.0, 1e-12, 1e-7], ids=["zero", "next to zero", "small"])
@pytest.mark.parametrize("layer", [0, 1, 2], ids=["convolution", "depthwise", "linear"])
def test_a_bias_is_kept_where_weights_are_next_to_nothing(
    layer: int, share: float, tmp_path: Path
) -> None:
    layers = (nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Linear(256, 4))
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Flatten(), layers[2])
    redraw(network, seed=0)
    bias = layers[layer].bias
    assert bias is not None
    # As a pruned channel has it, or one that a batch norm has switched off.
    layers[layer].weight.data[::2] *= share
    bias.data[::2] = 1.0
    assert _error(*_small(network, IMAGE), tmp_path) <= 0.1


@pytest.mark.parametrize("left", [-1.0, 0.0, 1e-6], ids=["dead", "just dead", "almost dead"])
def test_activations_may_be_constant(left: float, tmp_path: Path) -> None:
    first = nn.Linear(12, 16)
    network = nn.Sequential(first, nn.ReLU(), nn.Linear(16, 4))
    redraw(network, seed=0)
    vector = torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    _, cases = _small(network, vector)
    highest = first(torch.tensor(next(iter(cases.values())))).amax((0, 1))
    first.bias.data += left - highest.detach()
    assert _error(*_small(network, vector), tmp_path) <= 0.1


def test_only_channels_that_need_it_get_another_scale() -> None:
    layer = nn.Conv2d(3, 8, 3)
    network = nn.Sequential(layer)
    redraw(network, seed=0)
    model, cases = _small(network, IMAGE)
    layer.weight.data[3] = 0
    pruned, _ = _small(network, IMAGE)
    one, other = (_weight_scales(quantize(content, cases)) for content in (model, pruned))
    assert np.flatnonzero(one != other).tolist() == [3]


def _weight_scales(content: bytes) -> Array:
    (steps,) = [
        constant.steps for constant in constants(content) if constant.array.dtype == np.int8
    ]
    assert steps is not None
    return steps.scales


class Indexed(nn.Module):
    """Whole numbers and a vector in."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 4)
        self.vector = nn.Linear(5, 4)

    def forward(self, tokens: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 4)."""
        logits: torch.Tensor = self.head(self.embedding(tokens).mean(1)) + self.vector(vector)
        return logits


def test_inputs_of_int64_stay_so(tmp_path: Path) -> None:
    network = Indexed()
    redraw(network, seed=0)
    vector = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    model, cases = _small(network, torch.tensor([[1, 5, 10]]), vector)
    assert {info.dtype for info in signature(model).values()} == {"int64", "float32"}
    assert _error(model, cases, tmp_path) <= 0.1


class Twice(nn.Module):
    """One value under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Shapes (batch, 4)."""
        found = self.layer(x)
        return {"one": found, "other": found}


def test_outputs_that_the_quantizer_loses_are_named() -> None:
    model, cases = _small(Twice(), torch.zeros(1, 5))
    with pytest.raises(NestedgeError, match=r"outputs \['one', 'other'\] are lost"):
        quantize(model, cases)


def test_a_network_that_has_nothing_to_quantise_is_refused() -> None:
    with pytest.raises(NestedgeError, match="nothing in it can be quantised; build fp32"):
        quantize(*_small(nn.Identity(), torch.zeros(1, 5)))
