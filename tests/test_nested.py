from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.networks.redraw import redraw
from nestedge.errors import NestedgeError, UsageError
from nestedge.intervals import entries
from nestedge.levels import Level
from nestedge.materialization import state_dict
from nestedge.nested import Card, NestedModel, nest
from nestedge.tree import named
from tests.networks import (
    images,
    nested_perceptron,
    nested_resnet,
    resnet,
    resnet_twins,
    vectors,
)


@pytest.fixture(scope="module")
def trainable() -> NestedModel:
    return nested_resnet().train()


@pytest.fixture
def nested(trainable: NestedModel) -> NestedModel:
    return copy.deepcopy(trainable)


@pytest.fixture(scope="module")
def dropping() -> NestedModel:
    return nested_perceptron().train()


def _twin(nested: NestedModel, level: str) -> nn.Module:
    twin = resnet_twins()[level].double().train(nested.training)
    twin.load_state_dict(state_dict(nested, level))
    return twin


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _scattered(nested: NestedModel, level: str, name: str, part: torch.Tensor) -> torch.Tensor:
    """A gradient of a level's tensor, at its place in one of the shared tensor's shape."""
    shape = nested.elastic.program.tensors[name].shape
    used = nested.nesting.uses(level, name)
    assert used is not None
    kept = [np.flatnonzero(entries(u, n)) for u, n in zip(used, shape, strict=True)]
    whole = np.zeros(shape)
    whole[np.ix_(*kept)] = part.numpy()
    return torch.from_numpy(whole)


def _hashes(nested: NestedModel) -> dict[str, tuple[str, int]]:
    return {
        name: (hashlib.sha256(p.detach().numpy().tobytes()).hexdigest(), p._version)
        for name, p in nested.named_parameters()
    }


def test_gradients_of_summed_levels_equal_the_sum_of_those_of_hand_written_twins(
    nested: NestedModel,
) -> None:
    inputs, target = images(6)
    expected: dict[str, torch.Tensor] = {}
    for level in nested.levels:
        twin = _twin(nested, level)
        torch.autograd.backward(F.cross_entropy(twin(inputs), target))
        own = nested.own_tensors(level)
        for name, parameter in twin.named_parameters():
            if name in own:
                expected[f"{level}/{name}"] = _gradient(parameter)
                continue
            part = _scattered(nested, level, name, _gradient(parameter))
            expected[name] = expected.get(name, torch.zeros_like(part)) + part
    total = torch.zeros((), dtype=torch.float64)
    for level in nested.levels:
        with nested.at(level):
            total = total + F.cross_entropy(nested(inputs), target)
    torch.autograd.backward(total)
    found = {name: _gradient(p) for name, p in nested.shared.named_parameters()}
    for level in nested.levels:
        own = nested.own_tensors(level)
        found |= {f"{level}/{n}": _gradient(p) for n, p in own.items() if p.requires_grad}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("level", ["small", "medium", "full"])
def test_a_level_trained_for_a_step_equals_its_twin_trained_alike(
    nested: NestedModel, level: str
) -> None:
    inputs, target = images(6)
    twin = _twin(nested, level)
    for network in (nested, twin):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        # Other levels see other images: their statistics must not get into this level's.
        with torch.no_grad(), nested.at(*(set(nested.levels) - {level})):
            nested(images(6, seed=1)[0])
        with nested.at(level):
            torch.autograd.backward(F.cross_entropy(network(inputs), target))
        optimizer.step()
        network.eval()
    with nested.at(level), torch.no_grad():
        torch.testing.assert_close(nested(inputs), twin(inputs), rtol=1e-9, atol=1e-9)
    for name, tensor in state_dict(nested, level).items():
        torch.testing.assert_close(tensor, twin.state_dict()[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_running_levels_writes_no_parameter(nested: NestedModel, training: bool) -> None:
    nested.train(training)
    before = _hashes(nested)
    with nested.at(*nested.levels):
        nested(images(2)[0])
    with nested.at("small"):
        nested(images(2)[0]).sum().backward()
    assert _hashes(nested) == before


def test_evaluating_writes_no_buffer(nested: NestedModel) -> None:
    nested.eval()
    before = {name: (b.clone(), b._version) for name, b in nested.named_buffers()}
    with nested.at(*nested.levels):
        nested(images(2)[0])
    for name, buffer in nested.named_buffers():
        assert buffer._version == before[name][1]
        assert torch.equal(buffer, before[name][0])


def test_the_innermost_level_counts_and_the_outer_one_comes_back(nested: NestedModel) -> None:
    nested.eval()
    inputs, _ = images(2)
    alone = {}
    for level in nested.levels:
        with nested.at(level):
            alone[level] = nested(inputs)
    with nested.at("small"):
        with nested.at("medium"), nested.at():
            assert torch.equal(nested(inputs), alone["full"])
        assert torch.equal(nested(inputs), alone["small"])
        with pytest.raises(ValueError, match="stop"), nested.at("medium"):
            raise ValueError("stop")
        assert torch.equal(nested(inputs), alone["small"])
    assert torch.equal(nested(inputs), alone["full"])


def test_several_levels_give_a_dict_of_their_results(nested: NestedModel) -> None:
    nested.eval()
    inputs, _ = images(2)
    with nested.at("small", "full"):
        found = nested(inputs)
    assert list(found) == ["small", "full"]
    for level, output in found.items():
        with nested.at(level):
            assert torch.equal(nested(inputs), output)


def test_a_level_is_removed_without_a_trace(nested: NestedModel) -> None:
    before, nesting = _hashes(nested), nested.nesting
    mask = np.ones(tuple(named(nested.shared)["conv1.weight"].shape), dtype=bool)
    mask[0] = False
    nested.add_level("extra", Level(0.75, masks={"conv1.weight": mask}))
    with nested.at("extra"):
        wide = nested(images(8)[0])
    nested.remove_level("extra")
    assert {name: value for name, value in _hashes(nested).items() if "codes" not in name} == before
    assert (nested.nesting.levels, nested.nesting.own) == (nesting.levels, nesting.own)
    assert not any("extra" in levels for p in nested.nesting.patterns.values() for levels in p)
    nested.add_level("extra", 0.5)
    with nested.at("extra"):
        assert not torch.equal(nested(images(8)[0]), wide)
    with pytest.raises(UsageError, match=r"no level 'extr'.*did you mean 'extra'"):
        nested.remove_level("extr")


def test_a_level_that_shares_its_batch_norms_trains_those_of_the_network(
    trainable: NestedModel,
) -> None:
    nested = copy.deepcopy(trainable)
    nested.add_level("drawn", 0.5, batch_norm="shared")
    assert nested.own_tensors("drawn") == {}
    before = named(nested.shared)["bn1.running_mean"].clone()
    with nested.at("drawn"):
        nested(images(8)[0]).square().sum().backward()
    after, half = named(nested.shared)["bn1.running_mean"], len(before) // 2
    assert not torch.equal(after[:half], before[:half])
    assert torch.equal(after[half:], before[half:])
    assert _gradient(nested.shared.bn1.weight)[:half].abs().sum() > 0  # type: ignore[union-attr, arg-type]


class _Doubled(nn.Module):
    """A view: every weight of the stem times two."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"conv1.weight": tensors["conv1.weight"] * self.factor}


@pytest.mark.parametrize("level", [None, "small"])
def test_a_view_gives_tensors_as_functions_of_the_shared_ones(
    nested: NestedModel, level: str | None
) -> None:
    doubled = copy.deepcopy(nested)
    with torch.no_grad():
        named(doubled.shared)["conv1.weight"].mul_(2)
    view = _Doubled()
    nested.views.append(view)
    levels = () if level is None else (level,)
    with nested.at(*levels), doubled.at(*levels):
        found = nested(images(8)[0])
        assert torch.equal(found, doubled(images(8)[0]))
    found.square().sum().backward()
    assert _gradient(view.factor) != 0
    with pytest.raises(UsageError, match=r"still computes some weights from others.*fold them"):
        state_dict(nested, "small")


def test_an_unknown_level_is_refused_with_a_proposal(nested: NestedModel) -> None:
    message = r"no level 'smal'; .*\['small', 'medium', 'full'\]; did you mean 'small'"
    with pytest.raises(UsageError, match=message), nested.at("full", "smal"):
        pass
    nested.eval()
    with nested.at("small"):
        assert nested(images(2)[0]).shape == (2, 10)


X = torch.zeros(2, 3, 8, 8, dtype=torch.float64)

WRONG_CALLS: dict[str, tuple[Callable[[NestedModel], object], str]] = {
    "none": (lambda n: n(), r"input: expected a dict of \['x'\], found \[\]"),
    "too many": (lambda n: n(X, X), r"expected inputs \['x'\], found 2"),
    "unknown name": (lambda n: n(y=X), r"expected a dict of \['x'\], found \['y'\]"),
    "twice": (lambda n: n(X, x=X), r"inputs \['x'\] are given twice"),
    "no tensor": (lambda n: n("x"), "input.x: expected a tensor, found str"),
    "no batch": (lambda n: n(X[0]), r"input 'x': expected shape \['batch', 3, 8, 8\]"),
    "channels": (lambda n: n(X[:, :1]), r"found \[\d+, 1, 8, 8\]; nest it once more"),
    "dtype": (lambda n: n(X.float()), "aten.conv2d.default in conv1: "),
}


@pytest.mark.parametrize(("call", "message"), list(WRONG_CALLS.values()), ids=list(WRONG_CALLS))
def test_wrong_inputs_are_one_clear_error(
    trainable: NestedModel, call: Callable[[NestedModel], object], message: str
) -> None:
    with pytest.raises(NestedgeError, match=message):
        call(trainable)


def test_a_deep_copy_is_equal_and_apart(nested: NestedModel) -> None:
    copied = copy.deepcopy(nested).eval()
    nested.eval()
    inputs, _ = images(2)
    with nested.at("small"), copied.at("small"):
        before = nested(inputs)
        assert torch.equal(copied(inputs), before)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        assert torch.equal(nested(inputs), before)
        assert not torch.equal(copied(inputs), before)
    copied.add_level("extra", 0.75)
    assert "extra" not in nested.levels


@pytest.mark.parametrize("name", ["", "a/b", "..", "net.json", "-x"])
def test_a_level_that_could_not_be_a_folder_and_an_argument_is_refused(
    nested: NestedModel, name: str
) -> None:
    with pytest.raises(UsageError, match="letters, digits, '_' and '-' only, and no '-' first"):
        nested.add_level(name, 0.75)


def test_a_state_dict_carries_every_level(nested: NestedModel) -> None:
    other = copy.deepcopy(nested).eval()
    with nested.at(*nested.levels):
        nested(images(4)[0])
    with torch.no_grad():
        for parameter in nested.parameters():
            parameter.mul_(1.1)
    nested.eval()
    other.load_state_dict(nested.state_dict())
    inputs, _ = images(2)
    with nested.at(*nested.levels), other.at(*nested.levels):
        found, expected = other(inputs), nested(inputs)
    assert all(torch.equal(found[level], expected[level]) for level in nested.levels)


def test_parameters_are_the_shared_and_the_own_ones_each_once(nested: NestedModel) -> None:
    shared = sum(p.numel() for p in resnet().parameters())
    affine = {
        level: sum(
            p.numel()
            for m in twin.modules()
            if isinstance(m, nn.BatchNorm2d)
            for p in m.parameters()
        )
        for level, twin in resnet_twins().items()
    }
    expected = shared + affine["small"] + affine["medium"]
    assert sum(p.numel() for p in nested.parameters()) == expected


def test_it_moves_to_another_dtype_and_device(nested: NestedModel) -> None:
    inputs, _ = images(2)
    nested.eval()
    with nested.at("small"):
        expected = nested(inputs)
        found = nested.to(torch.float32)(inputs.float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        on_meta = nested.to("meta")(inputs.float().to("meta"))
    assert on_meta.shape == expected.shape
    assert on_meta.device.type == "meta"


def test_autocast_reaches_a_level(nested: NestedModel) -> None:
    inputs, target = images(8)
    nested.float()
    with nested.at("small"):
        exact = nested(inputs.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nested(inputs.float())
    assert exact.dtype == torch.float32
    assert found.dtype == torch.bfloat16
    with torch.no_grad():
        assert float((found.float() - exact).norm() / exact.norm()) < 0.05
    torch.autograd.backward(F.cross_entropy(found.float(), target))
    assert all(
        _gradient(p).dtype == torch.float32
        for p in nested.own_tensors("small").values()
        if p.requires_grad
    )


def test_training_mode_runs_the_training_program_at_a_level(dropping: NestedModel) -> None:
    nested = copy.deepcopy(dropping)
    inputs, _ = vectors(64)
    with nested.at("small"):
        first, second = nested(inputs), nested(inputs)
        assert list(first) == ["logits", "activity"]
        assert not torch.equal(first["logits"], second["logits"])
        nested.eval()
        found = nested(inputs)
    assert list(found) == ["logits"]
    weights = state_dict(nested, "small")
    features = F.relu(inputs @ weights["first.weight"].T + weights["first.bias"])
    expected = features @ weights["last.weight"].T + weights["last.bias"]
    torch.testing.assert_close(found["logits"], expected)


class _Branching(nn.Module):
    """In training, two layers are added that evaluation only concatenates."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.b = nn.Linear(4, 8)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(x)
        if self.training:
            a = a + b
        logits: torch.Tensor = self.head(torch.cat([a, b], 1))
        return logits


def test_channels_that_only_training_ties_are_an_error_that_says_so() -> None:
    nested = nest(
        _Branching(), torch.zeros(2, 4), {"small": Level({"a": 0.5})}, card=Card(divisor=1)
    )
    nested.train()
    message = "level 'small': in training the network ties channels"
    with nested.at("small"), pytest.raises(UsageError, match=message):
        nested(torch.zeros(2, 4))


class _Plain(nn.Module):
    """No batch norm: processes with half a batch each compute what one computes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(F.relu(self.first(x)).mean((2, 3)))
        return logits


def _nested_plain() -> NestedModel:
    model = _Plain().double()
    redraw(model, seed=0)
    return nest(model, X, {"small": 0.25, "medium": 0.5, "full": 1.0}, card=Card(divisor=4)).train()


def _step(nested: NestedModel, wrapper: nn.Module, share: slice) -> None:
    inputs, target = images(8)
    optimizer = torch.optim.SGD(nested.parameters(), 0.1)
    with nested.at("small", "medium", "full"):
        found = wrapper(inputs[share])
    losses = [F.cross_entropy(y, target[share]) for y in found.values()]
    torch.autograd.backward(torch.stack(losses).mean())
    optimizer.step()


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = (Path(folder) / "store").as_uri()
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    networks = {"plain": _nested_plain(), "normed": nested_resnet().train()}
    for name, nested in networks.items():
        _step(nested, DistributedDataParallel(nested), slice(rank * 4, rank * 4 + 4))
        torch.save(nested.state_dict(), Path(folder) / f"{name}{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of two processes after one distributed step."""
    folder = tmp_path_factory.mktemp("distributed")
    spawn(_worker, (str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


def test_a_distributed_step_equals_that_of_one_process(distributed: Path) -> None:
    alone = _nested_plain()
    before = copy.deepcopy(alone.state_dict())
    _step(alone, alone, slice(0, 8))
    for rank in range(2):
        for name, tensor in torch.load(distributed / f"plain{rank}.pt").items():
            torch.testing.assert_close(tensor, alone.state_dict()[name], rtol=1e-10, atol=1e-12)
            assert not torch.equal(tensor, before[name])


def test_a_distributed_step_with_batch_norms_keeps_the_processes_together(
    distributed: Path,
) -> None:
    first, second = (torch.load(distributed / f"normed{rank}.pt") for rank in range(2))
    before = nested_resnet().state_dict()
    for name in [n for n, _ in nested_resnet().named_parameters()]:
        assert torch.equal(first[name], second[name]), name
        assert not torch.equal(first[name], before[name]), name
