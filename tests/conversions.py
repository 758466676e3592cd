"""What the tests of all converters convert, and how they run what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from benchmarks.networks.vit import Attention
from nestedge.building.reference import reference_inputs
from nestedge.convert import BuildSpec, Converted, Converter, LevelProgram
from nestedge.expressions import Array
from nestedge.folding import fold_batch_norms
from nestedge.levels import Level
from nestedge.materialization import level_program
from nestedge.nested import Card, NestedModel, nest
from nestedge.plugins import Runtime
from nestedge.program.structure import flatten
from nestedge.verify import relative_error
from nestedge_onnx.converter import OnnxConverter, OnnxExported
from nestedge_onnx.exporter import export_model
from tests.networks import resnet

Arrays = Mapping[str, npt.NDArray[np.float32]]


class Mixed(nn.Module):
    """An image and a vector in, a nested dict out; most of what a converter may fold, inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.squeeze = nn.Conv2d(16, 8, 1)
        self.expand = nn.Conv2d(8, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.tokens_norm = nn.LayerNorm(16)
        self.first = nn.Linear(16, 24)
        self.second = nn.Linear(24, 16)
        self.scale = nn.Parameter(torch.ones(16))
        self.vector = nn.Linear(5, 16)
        self.head = nn.Linear(16, 4)

    def forward(
        self, image: Tensor, extra: dict[str, Tensor]
    ) -> dict[str, Tensor | dict[str, Tensor]]:
        """Logits of shape (batch, 4), and the mean of the tokens, shape (batch, 16)."""
        x = F.hardswish(self.stem_norm(self.stem(image)))
        gate = F.hardsigmoid(self.expand(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = x + self.conv(F.relu(self.norm(x * gate)))
        tokens = x.flatten(2).transpose(1, 2)
        inner = F.gelu(self.first(self.tokens_norm(tokens)))
        tokens = tokens + self.scale * self.second(inner)
        mean = tokens.mean(1)
        logits = self.head(mean + self.vector(extra["vector"])) / 2
        return {"logits": logits, "inner": {"mean": mean}}


@dataclass(frozen=True)
class Case:
    """A level, ready to convert, and what it gives for inputs.

    Attributes:
        level: with its batch norms folded.
        inputs: by name.
        outputs: by name.
        calibration: inputs like these, by name, of shape (cases, *shape of the input).
    """

    level: LevelProgram
    inputs: Arrays
    outputs: Arrays
    calibration: Arrays


def nested_mixed() -> NestedModel:
    """The network of `Mixed`, nested, with a level "half"."""
    model = Mixed()
    redraw(model, seed=0)
    return nest(model, _mixed_inputs(), {"half": 0.5}, card=Card(divisor=4))


def _mixed_inputs() -> dict[str, Tensor | dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, 8, 8, generator=generator)
    return {"image": image, "extra": {"vector": torch.randn(1, 5, generator=generator)}}


def mixed_case() -> Case:
    """The level "half" of `Mixed`."""
    return case_of(nested_mixed(), "half", _mixed_inputs())


def nested_resnet() -> NestedModel:
    """A residual network in single precision, with two levels."""
    model = resnet()
    redraw(model, seed=0)
    levels = {"small": Level(0.25, depth=(1, 2)), "medium": Level(0.5)}
    return nest(model, _images(), levels, card=Card(divisor=4))


def _images() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def resnet_case() -> Case:
    """A narrow level of a residual network, one image in, logits out."""
    return case_of(nested_resnet(), "small", {"x": _images()})


class Fine(nn.Module):
    """What a level may have less of beside channels: kernels, places in heads, branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, stride=2, padding=2)
        self.depthwise = nn.Conv2d(24, 24, 5, padding=2, groups=24)
        self.norm = nn.BatchNorm2d(24)
        self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=4)
        self.experts = nn.ModuleList(nn.Conv2d(24, 24, 1) for _ in range(3))
        self.attention = Attention(24, 4, head_dim=6)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 4) for images of shape (batch, 3, 8, 8)."""
        x = self.grouped(F.relu(self.norm(self.depthwise(self.stem(x)))))
        x = self.experts[0](x) + self.experts[1](x) + self.experts[2](x)
        logits: Tensor = self.head(self.attention(x.flatten(2).transpose(1, 2)).mean(1))
        return logits


def fine_case() -> Case:
    """A level of `Fine` with smaller kernels, and fewer groups, heads and places in them."""
    model = Fine()
    redraw(model, seed=0)
    level = Level(0.5, kernel=3, head_width={"*": 4}, branches={"*": [0, 2]})
    nested = nest(model, _images(), {"small": level}, card=Card(divisor=2))
    return case_of(nested, "small", {"x": _images()})


class Unconvertible(nn.Module):
    """A convolution, and a maximum that no exporter has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 8, 3, 3)."""
        return F.adaptive_max_pool2d(self.conv(x), 3)


def unconvertible_level() -> LevelProgram:
    """A level of `Unconvertible`."""
    return level_program(nest(Unconvertible(), torch.zeros(1, 3, 10, 10), {"full": 1.0}), "full")


CASES = {"resnet": resnet_case, "mixed": mixed_case, "fine": fine_case}


def case_of(nested: NestedModel, level: str, given: Mapping[str, object]) -> Case:
    """A level of a nested network, with what it gives for some inputs."""
    with torch.no_grad(), nested.at(level):
        results = flatten(nested.elastic.program.results, nested(**given))
    program = fold_batch_norms(level_program(nested, level))
    inputs = [spec.name for spec in program.program.inputs]
    leaves = flatten(program.program.arguments, dict(given))
    outputs = [name for name, _ in program.program.outputs]
    return Case(
        program,
        {name: leaf.numpy() for name, leaf in zip(inputs, leaves, strict=True)},
        {name: leaf.numpy() for name, leaf in zip(outputs, results, strict=True)},
        reference_inputs(nested, cases=16, seed=2),
    )


def converted(case: Case, converter: Converter, precision: str = "fp32") -> Converted:
    """What a converter makes of a level in a precision; int8 with the level's own calibration."""
    return converter.export(case.level).convert(spec_of(case, precision))


def spec_of(case: Case, precision: str) -> BuildSpec:
    """What to ask of a converter for a precision."""
    return BuildSpec(precision, case.calibration if precision == "int8" else None)


def outputs_of(case: Case, made: Converted, runtime: Runtime, path: Path) -> dict[str, Array]:
    """What a model file gives for the inputs of a case."""
    path.write_bytes(made.model)
    found = runtime.open(path).run(case.inputs)
    assert found.keys() == case.outputs.keys()
    return found


def errors_of(case: Case, made: Converted, runtime: Runtime, path: Path) -> dict[str, float]:
    """For every output how far a model file is from the level."""
    found = outputs_of(case, made, runtime, path)
    return {name: relative_error(found[name], case.outputs[name]) for name in found}


def cosine(found: Array, expected: Array) -> float:
    """The cosine of the angle between two outputs as vectors."""
    one, other = found.ravel().astype(np.float64), expected.ravel().astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def unexplained(made: Converted) -> list[str]:
    """The weights of more than one number that no expression gives."""
    return [
        f"{constant.name} {constant.dtype} {constant.shape}"
        for constant in made.constants
        if constant.dtype in ("float32", "float16", "int8")
        and math.prod(constant.shape) > 1
        and constant.expression is None
    ]


class MisplacingConverter(OnnxConverter):
    """Says of every constant that it lies a byte further on."""

    def export(self, level: LevelProgram, *, batch: int = 1) -> OnnxExported:
        return MisplacingExported(self, level, export_model(level, batch=batch))


class MisplacingExported(OnnxExported):
    """What `MisplacingConverter` gives."""

    def convert(self, spec: BuildSpec) -> Converted:
        converted = super().convert(spec)
        moved = (replace(c, offset=c.offset + 1) for c in converted.constants)
        return replace(converted, constants=tuple(moved))
