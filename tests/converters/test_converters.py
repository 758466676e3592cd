"""What every converter must do, whatever it converts to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge.convert import BuildSpec, Converted, Converter, Exported, LevelProgram
from nestedge.errors import NestedgeError, UsageError
from nestedge.explanation import check_constants
from nestedge.expressions import Array, evaluate
from nestedge.folding import fold_batch_norms
from nestedge.materialization import level_program
from nestedge.nested import nest
from nestedge.plugins import Runtime, TensorInfo
from nestedge.precisions import WeightSteps
from nestedge.verify import relative_error
from nestedge_onnx.converter import OnnxConverter
from nestedge_onnx.runtime import OnnxRuntime
from nestedge_tensorrt.converter import TensorrtConverter
from nestedge_tflite.converter import TfliteConverter
from nestedge_tflite.runtime import LiteRtRuntime
from tests.conversions import (
    CASES,
    Case,
    cosine,
    errors_of,
    outputs_of,
    spec_of,
    unconvertible_level,
    unexplained,
)

TOLERANCES = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.1}
INPUTS = (
    TensorInfo("image", (1, 3, 8, 8), "float32"),
    TensorInfo("extra_vector", (1, 5), "float32"),
)
OUTPUTS = (
    TensorInfo("logits", (1, 4), "float32"),
    TensorInfo("inner_mean", (1, 16), "float32"),
)


@dataclass(frozen=True)
class Subject:
    """A converter and what runs its files.

    Attributes:
        converter: the plug-in.
        runtime: the plug-in that opens its files.
        shares: for each precision that it has, what part the largest weight is of that in fp32.
        refusal: what it says of a network that its framework has no words for.
    """

    converter: Converter
    runtime: Runtime
    shares: Mapping[str, float]
    refusal: str

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that it has."""
        return tuple(self.shares)


SUBJECTS = {
    # TensorRT rounds weights itself, when the device builds the engine.
    "tensorrt": Subject(
        TensorrtConverter(),
        OnnxRuntime(),
        {"fp32": 1, "fp16": 1, "int8": 1},
        r"torch.onnx cannot export the level: .*adaptive_max_pool2d",
    ),
    "onnx": Subject(
        OnnxConverter(),
        OnnxRuntime(),
        {"fp32": 1, "fp16": 1 / 2, "int8": 1 / 4},
        r"torch.onnx cannot export the level: .*adaptive_max_pool2d",
    ),
    "tflite": Subject(
        TfliteConverter(),
        LiteRtRuntime(),
        {"fp32": 1, "fp16": 1 / 2, "int8": 1 / 4},
        r"litert-torch cannot convert the level: .*adaptive_max_pool2d",
    ),
}


@dataclass(frozen=True)
class Made:
    """A level and what a converter made of it."""

    subject: Subject
    case: Case
    precision: str
    model: Converted


@cache
def _case(name: str) -> Case:
    return CASES[name]()


@cache
def _exported(subject: str, case: str) -> Exported:
    return SUBJECTS[subject].converter.export(_case(case).level)


@cache
def _made(subject: str, case: str, precision: str) -> Made:
    exported = _exported(subject, case)
    model = exported.convert(spec_of(_case(case), precision))
    return Made(SUBJECTS[subject], _case(case), precision, model)


def _cells() -> Iterator[object]:
    for name, subject in SUBJECTS.items():
        for precision in subject.precisions:
            for case in CASES:
                yield pytest.param((name, case, precision), id=f"{name}-{precision}-{case}")


@pytest.fixture(params=_cells())
def made(request: pytest.FixtureRequest) -> Made:
    subject, case, precision = request.param
    return _made(subject, case, precision)


@pytest.fixture(params=list(SUBJECTS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_file_computes_what_the_level_does(made: Made, tmp_path: Path) -> None:
    errors = errors_of(made.case, made.model, made.subject.runtime, tmp_path / "model")
    assert max(errors.values()) <= TOLERANCES[made.precision]


def test_outputs_point_where_those_of_the_level_do(made: Made, tmp_path: Path) -> None:
    found = outputs_of(made.case, made.model, made.subject.runtime, tmp_path / "model")
    for output, expected in made.case.outputs.items():
        assert cosine(found[output], expected) > 0.99


def test_every_precision_takes_and_gives_what_the_network_does(name: str, tmp_path: Path) -> None:
    for precision in SUBJECTS[name].precisions:
        made = _made(name, "mixed", precision)
        assert made.model.inputs == INPUTS
        assert made.model.outputs == OUTPUTS
        path = tmp_path / precision
        path.write_bytes(made.model.model)
        session = made.subject.runtime.open(path)
        assert set(session.inputs) == set(INPUTS)
        assert set(session.outputs) == set(OUTPUTS)


def test_weights_are_as_small_as_the_precision_says(name: str) -> None:
    sizes = {
        precision: max(c.size_bytes for c in _made(name, "resnet", precision).model.constants)
        for precision in SUBJECTS[name].precisions
    }
    shares = {precision: size / sizes["fp32"] for precision, size in sizes.items()}
    assert shares == SUBJECTS[name].shares


def test_every_constant_comes_from_stored_tensors(made: Made) -> None:
    assert unexplained(made.model) == []
    stored = made.case.level.stored
    assert check_constants(made.model.constants, made.model.model, stored) == []


def test_a_changed_constant_is_found(made: Made) -> None:
    constant = max(made.model.constants, key=lambda constant: constant.size_bytes)
    content = bytearray(made.model.model)
    content[constant.offset] ^= 1
    stored = made.case.level.stored
    assert check_constants(made.model.constants, bytes(content), stored) == [constant.name]


def test_a_file_names_no_folder_of_this_machine(made: Made) -> None:
    for folder in {Path(__file__).parents[2], Path(os.__file__).parent, Path.home()}:
        assert str(folder).encode() not in made.model.model
        for content in made.model.files.values():
            assert str(folder).encode() not in content
    assert b"site-packages" not in made.model.model
    assert b".py" not in made.model.model


def test_the_same_level_gives_the_same_bytes(made: Made, request: pytest.FixtureRequest) -> None:
    subject, case, precision = request.node.callspec.params["made"]
    again = _exported(subject, case).convert(spec_of(made.case, precision))
    assert again.model == made.model.model
    assert again.files == made.model.files


PROGRAM = """
import hashlib, json, sys
from tests.conversions import mixed_case, spec_of
from tests.converters.test_converters import SUBJECTS
subject, case = SUBJECTS[sys.argv[1]], mixed_case()
exported = subject.converter.export(case.level)
made = [exported.convert(spec_of(case, precision)).model for precision in subject.precisions]
print(json.dumps([hashlib.sha256(model).hexdigest() for model in made]))
"""


@cache
def _printed(subject: str) -> list[tuple[str, str]]:
    """What two processes that hash differently write to stdout and stderr."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "converters")])
    command = [sys.executable, "-c", PROGRAM, subject]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    return [process.communicate() for process in processes]


def test_every_process_gives_the_same_bytes(name: str) -> None:
    models = [_made(name, "mixed", p).model.model for p in SUBJECTS[name].precisions]
    expected = [hashlib.sha256(model).hexdigest() for model in models]
    answers = [json.loads(out.splitlines()[-1]) for out, _ in _printed(name)]
    assert answers == [expected, expected]


def test_nothing_is_printed(name: str) -> None:
    for out, err in _printed(name):
        assert len(out.splitlines()) == 1
        assert err == ""


def test_a_batch_is_the_first_axis_of_inputs_and_outputs(name: str) -> None:
    level = _case("resnet").level
    made = SUBJECTS[name].converter.export(level, batch=3).convert(BuildSpec())
    assert [info.shape for info in made.inputs] == [(3, 3, 8, 8)]
    assert [info.shape for info in made.outputs] == [(3, 10)]


def test_what_made_a_file_is_named_with_its_version(made: Made) -> None:
    converter = made.subject.converter
    assert made.model.producer.items() >= {p: version(p) for p in converter.packages}.items()
    # What else a converter has, not every network of these cases can be given.
    assert set(made.subject.precisions) <= set(converter.precisions)


def test_a_precision_that_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: no precision 'int3'; it has"):
        _exported(name, "mixed").convert(BuildSpec("int3"))


@pytest.mark.parametrize("calibration", [None, {}], ids=["none", "empty"])
def test_int8_wants_calibration_data(name: str, calibration: dict[str, object] | None) -> None:
    if "int8" in SUBJECTS[name].precisions:
        with pytest.raises(UsageError, match=f"{name}: int8 needs calibration data"):
            _exported(name, "mixed").convert(BuildSpec("int8", calibration))  # type: ignore[arg-type]


def test_a_weight_that_half_precision_cannot_hold_is_named(name: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    level = level_program(nest(network, torch.zeros(1, 4), {"full": 1.0}), "full")
    level.tensors["2.weight"][0, 0] = -1e5
    exported = SUBJECTS[name].converter.export(level)
    with pytest.raises(NestedgeError, match=r"'2.weight': fp16 holds .* 65504, found 100000"):
        exported.convert(BuildSpec("fp16"))


def test_an_operator_that_it_cannot_express_is_named(name: str) -> None:
    with pytest.raises(NestedgeError, match=SUBJECTS[name].refusal) as info:
        SUBJECTS[name].converter.export(unconvertible_level())
    assert "\n" not in str(info.value)


class Plain(nn.Module):
    """Two convolutions with batch norms and a linear layer; every level is a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.second, self.second_norm = nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first_norm(self.first(x)))
        logits: torch.Tensor = self.head(torch.relu(self.second_norm(self.second(x))).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def family() -> dict[str, LevelProgram]:
    model = Plain()
    redraw(model, seed=0)
    nested = nest(model, torch.zeros(1, 3, 8, 8), {"half": 0.5, "full": 1.0})
    return {name: fold_batch_norms(level_program(nested, name)) for name in nested.levels}


def _int8_weights(converter: Converter, level: LevelProgram, steps: WeightSteps) -> list[Array]:
    """The int8 weights of a file, in its order."""
    images = np.random.default_rng(0).standard_normal((8, 1, 3, 8, 8)).astype(np.float32)
    made = converter.export(level).convert(BuildSpec("int8", {"x": images}, steps))
    assert check_constants(made.constants, made.model, level.stored) == []
    weights = [c for c in made.constants if c.dtype == "int8" and len(c.shape) >= 2]
    assert all(constant.expression is not None for constant in weights)
    return [
        np.frombuffer(made.model, np.int8, c.size_bytes, c.offset).reshape(c.shape) for c in weights
    ]


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_levels_have_the_same_whole_numbers_and_with_steps_of_their_own_others(
    name: str, family: dict[str, LevelProgram]
) -> None:
    converter = SUBJECTS[name].converter
    shared: dict[WeightSteps, list[bool]] = {}
    for steps in ("family", "level"):
        half, full = (_int8_weights(converter, family[level], steps) for level in family)
        # A batch norm's factor may be negative in one level and positive in another.
        shared[steps] = [
            np.array_equal(np.abs(small), np.abs(large)[tuple(map(slice, small.shape))])
            for small, large in zip(half, full, strict=True)
        ]
    assert len(shared["family"]) == 3
    assert all(shared["family"])
    assert not all(shared["level"])


def test_tensorrt_gets_weights_that_lie_on_the_grid(family: dict[str, LevelProgram]) -> None:
    images = np.random.default_rng(0).standard_normal((8, 1, 3, 8, 8)).astype(np.float32)
    converter = SUBJECTS["tensorrt"].converter
    whole = {}
    for name, level in family.items():
        made = converter.export(level).convert(BuildSpec("int8", {"x": images}))
        assert check_constants(made.constants, made.model, level.stored) == []
        expressions = {constant.name: constant.expression for constant in made.constants}
        weight, steps = expressions["second.weight"], expressions["second.weight_scale"]
        assert weight is not None
        assert steps is not None
        found = evaluate(weight, level.stored), evaluate(steps, level.stored).reshape(-1, 1, 1, 1)
        whole[name] = np.round(found[0] / found[1])
        on_grid = (whole[name] * found[1].astype(np.float64)).astype(np.float32)
        assert np.array_equal(on_grid, found[0])
    rows, columns = whole["half"].shape[:2]
    assert np.array_equal(np.abs(whole["half"]), np.abs(whole["full"])[:rows, :columns])


class Tied(nn.Module):
    """Two layers of one weight with biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(16, 16))
        self.biases = nn.ParameterList(torch.empty(16) for _ in range(2))
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for bias in self.biases:
            x = torch.relu(nn.functional.linear(x, self.weight, bias))
        logits: torch.Tensor = self.head(x)
        return logits


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_layers_of_one_weight_keep_biases_of_their_own(name: str, tmp_path: Path) -> None:
    model = Tied()
    redraw(model, seed=0)
    level = level_program(nest(model, torch.zeros(1, 16), {"full": 1.0}), "full")
    inputs = np.random.default_rng(0).standard_normal((16, 1, 16)).astype(np.float32)
    made = SUBJECTS[name].converter.export(level).convert(BuildSpec("int8", {"x": inputs}))
    (tmp_path / "model").write_bytes(made.model)
    session = SUBJECTS[name].runtime.open(tmp_path / "model")
    found = np.stack([next(iter(session.run({"x": case}).values())) for case in inputs])
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs)).numpy()
    assert relative_error(found, expected) < 0.05
