from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.overrides import TorchFunctionMode

from nestedge.consensus import add_consensus
from nestedge.convert import BuildSpec
from nestedge.errors import UsageError
from nestedge.expressions import Array, evaluate
from nestedge.folding import LAYERS, fold_batch_norms
from nestedge.grids import Grid, family_grid
from nestedge.levels import Level
from nestedge.materialization import level_program
from nestedge.model import NestedModel
from nestedge.nested import Card, nest
from nestedge.nestfile import load
from nestedge.program.arguments import named_arguments
from nestedge.program.operators import resolve
from nestedge.quantization import along
from nestedge.training import (
    Batch,
    Checkpoints,
    FakeQuantization,
    Objective,
    Progress,
    Step,
    accuracy,
    joint_objective,
    recalibrate,
    train,
)
from nestedge.training.fake_quantization import (
    layer_inputs,
    observed,
    rounded_activation,
    rounded_weight,
    weight_steps,
)
from nestedge.training.precision import Precision
from nestedge_onnx.converter import OnnxConverter
from nestedge_onnx.runtime import OnnxRuntime
from tests.conversions import nested_resnet

LEVELS = ("small", "full")


class _Layers(TorchFunctionMode):
    """Notes what layers are called with while it is entered: inputs and weights, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []
        self.weights: list[torch.Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in map(resolve, LAYERS):
            self.inputs.append(args[0].detach())
            self.weights.append(args[1].detach())
        return func(*args, **(kwargs or {}))


def _network(*, card: Card | None = None) -> NestedModel:
    """Two convolutions with a batch norm each, and a linear layer, in single precision."""
    return copy.deepcopy(_captured(card))


@cache
def _captured(card: Card | None) -> NestedModel:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    )
    nested = nest(model, torch.zeros(2, 3, 8, 8), {"small": 0.5, "full": 1.0}, card=card)
    return nested.train().eval()


def _batches(count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(8, 3, 8, 8, generator=generator),
            torch.randint(4, (8,), generator=generator),
        )
        for _ in range(count)
    ]


def _objective() -> Objective:
    return joint_objective(LEVELS, F.cross_entropy)


def _trained(nested: NestedModel, **options: Any) -> dict[str, torch.Tensor]:
    """The tensors after training, of which a copy is trained if nothing is rounded."""
    optimizer = SGD(nested.parameters(), 0.1, momentum=0.9)
    settings = {"epochs": 2, "objective": _objective(), "optimizer": optimizer, **options}
    train(nested, _batches(), **settings)
    return nested.state_dict()


def _grids(nested: NestedModel, level: str, *, folded: bool) -> list[Grid | None]:
    """The grids of a level's layers, in the order in which they run."""
    program = level_program(nested, level)
    program = fold_batch_norms(program) if folded else program
    weights = [
        named_arguments(node, lambda leaf: leaf)["weight"].name
        for node in program.program.nodes
        if node.op in LAYERS
    ]
    return [family_grid(program.expressions[name], 0, program.stored) for name in weights]


def _layers_of(nested: NestedModel, level: str, inputs: torch.Tensor) -> _Layers:
    layers = _Layers()
    with FakeQuantization(nested).applied(), nested.at(level), layers:
        nested(inputs)
    return layers


def _masked() -> NestedModel:
    nested = _network()
    mask = np.arange(16 * 16 * 9).reshape(16, 16, 3, 3) % 3 > 0
    nested.add_level("sparse", Level(0.5, masks={"3.weight": mask}))
    return nested


def _voting() -> NestedModel:
    nested = nested_resnet()
    add_consensus(nested, "vote", ["small", "medium"])
    return nested


@pytest.mark.parametrize(
    ("make", "level"),
    [(nested_resnet, "small"), (nested_resnet, "medium"), (_masked, "sparse"), (_voting, "vote")],
    ids=["depth", "width", "masked", "consensus"],
)
def test_weights_are_rounded_to_the_numbers_of_the_familys_int8_files(
    make: Callable[[], NestedModel], level: str
) -> None:
    nested = make()
    with torch.no_grad():
        for name, own in nested.own_tensors(level).items():
            own.mul_(-1.5 if name.endswith("weight") else 1)
    layers = _layers_of(nested, level, torch.randn(2, 3, 8, 8))
    plain, folded = (_grids(nested, level, folded=whether) for whether in (False, True))
    stored = level_program(nested, level).stored
    assert len(layers.weights) == len(plain) == len(folded) > 2
    for weight, grid, in_file in zip(layers.weights, plain, folded, strict=True):
        assert grid is not None
        assert in_file is not None
        numbers, steps = (evaluate(e, stored) for e in (grid.values, grid.steps))
        expected = numbers.astype(np.float32) * along(steps, numbers.ndim, 0)
        # To the bit: the whole number times the step.
        assert np.array_equal(weight.numpy(), expected)
        assert np.array_equal(np.abs(evaluate(in_file.values, stored)), np.abs(numbers))
        assert np.abs(numbers).max() > 60


def test_levels_train_on_the_same_whole_numbers() -> None:
    nested = _network()
    seen: list[tuple[_Layers, _Layers]] = []

    def objective(network: NestedModel, inputs: Any, target: Any, _: Step) -> Iterator[Any]:
        pair = (_Layers(), _Layers())
        for level, layers in zip(LEVELS, pair, strict=True):
            with network.at(level), layers:
                output = network(inputs)
            yield F.cross_entropy(output, target)
        seen.append(pair)

    _trained(nested, objective=objective, quantization=FakeQuantization(nested))
    assert len(seen) == 6
    for small, full in seen:
        for narrow, wide in zip(small.weights, full.weights, strict=True):
            rows, columns = narrow.shape[:2]
            assert torch.equal(narrow, wide[:rows, :columns])
            steps = weight_steps(wide).reshape(-1, *(1,) * (wide.dim() - 1))
            numbers = wide / steps
            assert torch.allclose(numbers, numbers.round(), atol=1e-3)
            assert numbers.abs().max().round() == 127
    first, last = (pair[0].weights[0] for pair in (seen[0], seen[-1]))
    assert not torch.equal(first, last)


def test_a_weight_of_a_levels_own_has_steps_of_its_own() -> None:
    nested = _network(card=Card(own=("9.weight",)))
    with torch.no_grad():
        nested.own_tensors("small")["9.weight"].mul_(0.01)
    own = nested.own_tensors("small")["9.weight"].detach()
    found = _layers_of(nested, "small", _batches()[0][0]).weights[-1]
    assert torch.equal(found, rounded_weight(own, weight_steps(own)))
    assert (found - own).abs().max() <= weight_steps(own).max()


def test_gradients_pass_straight_through_and_not_where_a_number_is_clipped() -> None:
    weight = torch.tensor([[1.0, 0.3], [0.0, 0.0]], requires_grad=True)
    found = rounded_weight(weight, weight_steps(weight))
    assert weight_steps(weight).tolist() == pytest.approx([1 / 127, 1.0])
    torch.testing.assert_close(found, torch.tensor([[1.0, 38 / 127], [0.0, 0.0]]))
    torch.autograd.backward((found * torch.tensor([[2.0, 3.0], [4.0, 5.0]])).sum())
    assert weight.grad is not None
    assert weight.grad.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    # Steps of 1/85 from -1, which is place 0, to 2, which is place 255.
    value = torch.tensor([-9.0, -1.001, 0.0, 0.51, 2.004, 2.02], requires_grad=True)
    clipped = rounded_activation(value, torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(clipped, torch.tensor([-1.0, -1.0, 0.0, 43 / 85, 2.0, 2.0]))
    torch.autograd.backward(clipped.sum())
    assert value.grad is not None
    assert value.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("extremes", "values", "expected"),
    [
        ((0.0, 0.0), [0.0, 0.4, -1.0], [0.0, 0.0, 0.0]),
        ((0.0, 255.0), [254.6, 300.0, -1.0], [255.0, 255.0, 0.0]),
        ((-255.0, 0.0), [-254.6, -300.0, 1.0], [-255.0, -255.0, 0.0]),
        # 0 is a place: the 94th of 2.7 / 255 each, for which the extremes give way a little.
        ((-1.0, 1.7), [0.001, 1.7, -1.0], [0.0, 161 * 2.7 / 255, -94 * 2.7 / 255]),
    ],
    ids=["nothing", "positive", "negative", "both"],
)
def test_ranges_hold_zero_exactly(
    extremes: tuple[float, float], values: list[float], expected: list[float]
) -> None:
    found = rounded_activation(torch.tensor(values), torch.tensor(extremes))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_ranges_run_behind_what_is_read_and_hold_zero() -> None:
    first = observed(torch.tensor([1.0, 2.0]), None)
    assert first.tolist() == [0.0, 2.0]
    assert observed(torch.tensor([-1.0, 4.0]), first).tolist() == pytest.approx([-0.1, 2.2])


def test_what_every_layer_reads_is_rounded_and_what_the_network_gives_is_not() -> None:
    nested = _network()
    inputs, _ = _batches()[0]
    quantization = FakeQuantization(nested)
    nested.train()
    with quantization.applied(), nested.at("full"):
        nested(inputs)
        nested.eval()
        with _Layers() as layers:
            output = nested(inputs)
    ranges = quantization.state_dict()["full"]
    assert list(ranges) == ["0.weight", "3.weight", "9.weight"]
    for value, (low, high) in zip(layers.inputs, ranges.values(), strict=True):
        numbers = value * 255 / (high - low)
        assert torch.allclose(numbers, numbers.round(), atol=1e-3)
        assert len(set(value.flatten().tolist())) <= 256
    assert not torch.equal(layers.inputs[0], inputs)
    last = layers.inputs[-1] @ layers.weights[-1].T + nested.state_dict()["shared.9.bias"]
    assert torch.allclose(output, last, atol=1e-6)


def test_ranges_are_a_levels_own_and_held_in_evaluation() -> None:
    nested = _network()
    quantization = FakeQuantization(nested)
    _trained(nested, quantization=quantization)
    before = copy.deepcopy(quantization.state_dict())
    assert set(before) == set(LEVELS)
    assert not torch.equal(before["small"]["9.weight"], before["full"]["9.weight"])
    nested.eval()
    with quantization.applied():
        for level in LEVELS:
            with nested.at(level):
                nested(100 * _batches()[0][0])
    after = quantization.state_dict()
    assert all(torch.equal(after[n][key], before[n][key]) for n in before for key in before[n])


def test_layers_go_by_their_weights_in_training_and_in_evaluation() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)
            self.other = nn.Linear(6, 6)
            self.dropout = nn.Dropout(0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.dropout(torch.relu(self.layer(x)))
            y: torch.Tensor = self.layer(x) + self.other(x)
            return y

    nested = nest(Twice(), torch.zeros(2, 6), {"full": 1.0})
    for program in (nested.plan("full").program, nested.training_program):
        # The second call and the other layer read the same value.
        assert list(layer_inputs(program).values()) == ["layer.weight", "layer.weight:2"]


def test_without_activations_only_weights_are_rounded() -> None:
    nested, inputs = _network().train(), _batches()[0][0]
    quantization = FakeQuantization(nested, activations=False)
    with quantization.applied(), _Layers() as layers:
        nested(inputs)
    assert torch.equal(layers.inputs[0], inputs)
    whole = nested.state_dict()["shared.0.weight"]
    assert torch.equal(layers.weights[0], rounded_weight(whole, weight_steps(whole)))
    assert not torch.equal(layers.weights[0], whole)
    assert quantization.extremes() == []


def test_rounding_begins_with_its_epoch() -> None:
    ends: dict[str, list[torch.Tensor]] = {"plain": [], "rounded": []}
    for name, found in ends.items():
        nested = _network()

        def after_epoch(
            _: int, nested: NestedModel = nested, found: list[torch.Tensor] = found
        ) -> None:
            found.append(nested.state_dict()["shared.0.weight"].clone())

        quantization = FakeQuantization(nested, from_epoch=1) if name == "rounded" else None
        _trained(nested, after_epoch=after_epoch, quantization=quantization)
    same = [torch.equal(*pair) for pair in zip(ends["plain"], ends["rounded"], strict=True)]
    assert same == [True, False]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_rounds_to_the_same_numbers(precision: Precision) -> None:
    nested = _network()
    objective, layers = _objective(), _Layers()

    def watched(network: NestedModel, inputs: Any, target: Any, step: Step) -> Iterator[Any]:
        with layers:
            yield from objective(network, inputs, target, step)

    before = copy.deepcopy(nested.state_dict())
    options: dict[str, Any] = {"precision": precision, "objective": watched}
    after = _trained(nested, epochs=1, quantization=FakeQuantization(nested), **options)
    whole = before["shared.0.weight"]
    assert torch.equal(layers.weights[3], rounded_weight(whole, weight_steps(whole)))
    assert {value.dtype for value in layers.inputs} > {torch.float32}
    assert all(len(set(value.flatten().tolist())) <= 256 for value in layers.inputs)
    assert not torch.equal(after["shared.0.weight"], whole)
    assert all(tensor.isfinite().all() for tensor in after.values())


class _KilledError(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("stop", [(1, 2), (2, 1), (2, 3)], ids=["first", "second", "last"])
def test_training_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, stop: tuple[int, int]
) -> None:
    def progress(report: Progress) -> None:
        if (report.epoch, report.step) == stop:
            raise _KilledError

    def trained(**options: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        nested = _network()
        quantization = FakeQuantization(nested)
        found = _trained(nested, quantization=quantization, **options)
        return found, quantization.state_dict()

    expected, ranges = trained()
    checkpoints = Checkpoints(tmp_path, every=1)
    with pytest.raises(_KilledError):
        trained(checkpoints=checkpoints, progress=progress)
    found, again = trained(checkpoints=checkpoints)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {level: list(of) for level, of in ranges.items()} == {
        level: list(of) for level, of in again.items()
    }
    assert all(torch.equal(again[n][key], ranges[n][key]) for n in ranges for key in ranges[n])
    with pytest.raises(UsageError, match=r"is of a training with .*quantization.*this one has"):
        _trained(_network(), checkpoints=checkpoints)


def test_the_network_is_as_it_was_outside_of_the_losses(tmp_path: Path) -> None:
    nested = _network()
    quantization = FakeQuantization(nested)
    inputs = _batches()[0][0]
    plain = nested(inputs)

    def failing(network: NestedModel, x: Any, _: Any, __: Step) -> Iterator[torch.Tensor]:
        assert network.operation is not None
        yield network(x).sum() * 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _trained(nested, objective=failing, quantization=quantization)
    assert nested.operation is None
    twin = _network()
    assert torch.equal(twin(inputs), plain)
    _trained(nested, quantization=quantization)
    nested.eval().save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert torch.equal(loaded(inputs), nested(inputs))


def test_statistics_are_measured_on_rounded_numbers() -> None:
    plain = _network(card=Card(batch_norm="statistics"))
    rounded = copy.deepcopy(plain)
    recalibrate(plain, _batches(), levels=["small"])
    with FakeQuantization(rounded).applied(), _Layers() as layers:
        recalibrate(rounded, _batches(), levels=["small"])
    whole = rounded.state_dict()["shared.0.weight"]
    assert torch.equal(layers.weights[0], rounded_weight(whole, weight_steps(whole))[:8])
    found, unlike = (n.own_tensors("small")["1.running_mean"] for n in (rounded, plain))
    assert not torch.equal(found, unlike)
    assert torch.allclose(found, unlike, atol=0.01)


def _planted() -> NestedModel:
    """A classifier that 8 bits ruin: one input, always zero, has weights that take all steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    nested = nest(model, torch.zeros(2, 6), {"small": 0.5, "full": 1.0})
    optimizer = SGD(nested.parameters(), 0.3, momentum=0.9)
    objective = joint_objective(LEVELS, F.cross_entropy)
    train(nested, _separable(), epochs=15, objective=objective, optimizer=optimizer)
    with torch.no_grad():
        nested.state_dict()["shared.0.weight"][:, 5] = 1000.0
    nested.calibrate_with(_separable()[0][0])
    return nested


def _separable() -> list[Batch]:
    """Vectors of three classes; the last number of each is zero."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(128, 6, generator=generator)
    inputs[:, 5] = 0
    return [(inputs, inputs[:, :3].argmax(1))]


def _recognised(nested: NestedModel, level: str, folder: Path) -> float:
    """Percent that the level's int8 file for ONNX Runtime recognises."""
    assert nested.calibration is not None
    spec = BuildSpec("int8", nested.calibration.inputs)
    program = fold_batch_norms(level_program(nested, level))
    path = folder / f"{level}.onnx"
    path.write_bytes(OnnxConverter().export(program).convert(spec).model)
    session = OnnxRuntime().open(path)
    (inputs, target), *_ = _separable()
    found: list[Array] = [
        next(iter(session.run({"input": vector[None]}).values())) for vector in inputs.numpy()
    ]
    return 100 * float((np.concatenate(found).argmax(1) == target.numpy()).mean())


def test_what_8_bits_ruin_is_learned_again_by_all_levels(tmp_path: Path) -> None:
    planted = _planted()
    nested, control = copy.deepcopy(planted), copy.deepcopy(planted)
    quantization = FakeQuantization(nested)
    for network, rounding in ((nested, quantization), (control, None)):
        objective = joint_objective(LEVELS, F.cross_entropy)
        optimizer = SGD(network.parameters(), 0.3, momentum=0.9)
        options: dict[str, Any] = {"objective": objective, "optimizer": optimizer}
        train(network, _separable(), epochs=60, quantization=rounding, **options)
    for ruined in (planted, control):
        assert accuracy(ruined, _separable(), "small") > 85
        assert _recognised(ruined, "small", tmp_path) < 60
    for level in LEVELS:
        recovered = _recognised(nested, level, tmp_path)
        assert recovered > 80
        with quantization.applied():
            assert abs(accuracy(nested, _separable(), level) - recovered) < 3


def test_what_cannot_be_rounded_is_refused() -> None:
    nested = _network()
    with pytest.raises(UsageError, match="from_epoch: expected 0 or more, found -1"):
        FakeQuantization(nested, from_epoch=-1)
    with pytest.raises(UsageError, match=r"before the end of 2 epochs, found epoch 2, counted"):
        _trained(nested, quantization=FakeQuantization(nested, from_epoch=2))
    with pytest.raises(UsageError, match="quantization: is of another network"):
        _trained(nested, quantization=FakeQuantization(_network()))
    bare = nest(nn.LayerNorm(6), torch.zeros(2, 6), {"full": 1.0})
    with pytest.raises(UsageError, match="the network has no convolution or linear layer"):
        FakeQuantization(bare)
