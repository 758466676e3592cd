from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from nestedge.errors import NestedgeError
from nestedge.nested import NestedModel
from nestedge.training import (
    Checkpoints,
    FakeQuantization,
    joint_objective,
    sandwich_objective,
    train,
)
from nestedge.training.processes import average, is_first, processes
from tests.networks import cross_entropy, logits_of, nested_perceptron, nested_resnet, vectors

LEVELS = ("tiny", "small", "full")


def _one_step(nested: NestedModel, share: slice) -> dict[str, torch.Tensor]:
    inputs, target = vectors(8)
    optimizer = SGD(nested.parameters(), 0.1, momentum=0.9)
    reports = train(
        nested,
        [(inputs[share], target[share])],
        epochs=1,
        objective=joint_objective(LEVELS, cross_entropy),
        optimizer=optimizer,
    )
    return {**nested.state_dict(), "loss": torch.tensor(reports[-1].loss, dtype=torch.float64)}


def _epochs(nested: NestedModel, folder: Path) -> dict[str, torch.Tensor]:
    """Two epochs with drawn levels, on data that a sampler shares out."""
    data = TensorDataset(*vectors(32))
    train(
        nested,
        DataLoader(data, batch_size=4, sampler=DistributedSampler(data)),
        epochs=2,
        objective=sandwich_objective(
            cross_entropy, largest="full", smallest="tiny", between=["small"], logits=logits_of
        ),
        optimizer=SGD(nested.parameters(), 0.1, momentum=0.9),
        checkpoints=Checkpoints(folder),
    )
    return nested.state_dict()


def _normed(nested: NestedModel, rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator)
    train(
        nested,
        [(images, torch.arange(4))],
        epochs=1,
        objective=joint_objective(["small", "full"], torch.nn.functional.cross_entropy),
        optimizer=SGD(nested.parameters(), 0.01),
    )
    return nested.state_dict()


def _ranged(nested: NestedModel, rank: int) -> dict[str, torch.Tensor]:
    """The ranges of what layers read, after one step of rounded levels."""
    generator = torch.Generator().manual_seed(rank)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator)
    quantization = FakeQuantization(nested)
    train(
        nested,
        [(images, torch.arange(4))],
        epochs=1,
        objective=joint_objective(["small", "full"], torch.nn.functional.cross_entropy),
        optimizer=SGD(nested.parameters(), 0.01),
        quantization=quantization,
    )
    ranges = quantization.state_dict()
    return {f"{level}/{layer}": of[layer] for level, of in ranges.items() for layer in of}


def _synchronized(nested: NestedModel, share: slice) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=generator)
    train(
        nested,
        [(images[share], torch.arange(8)[share] % 4)],
        epochs=1,
        objective=joint_objective(["small", "full"], torch.nn.functional.cross_entropy),
        optimizer=SGD(nested.parameters(), 0.01),
        sync_batch_norm=True,
    )
    return nested.state_dict()


def _nan(nested: NestedModel, rank: int) -> str:
    inputs, target = vectors(8)
    try:
        train(
            nested,
            [(inputs * (float("nan") if rank == 1 else 1), target)],
            epochs=1,
            objective=joint_objective(LEVELS, cross_entropy),
            optimizer=SGD(nested.parameters(), 0.1),
        )
    except NestedgeError as error:
        return str(error)
    return ""


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = (Path(folder) / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    nested = nested_perceptron(dropout=0.0)
    # Other weights than the first process has: training begins with those of the first.
    with torch.no_grad():
        for parameter in nested.parameters() if rank else ():
            parameter.add_(1.0)
    found = {
        "step": _one_step(nested, slice(rank * 4, rank * 4 + 4)),
        "epochs": _epochs(nested_perceptron(), Path(folder) / "checkpoints"),
        "normed": _normed(nested_resnet(), rank),
        "ranged": _ranged(nested_resnet(), rank),
        "synchronized": _synchronized(nested_resnet(), slice(rank * 4, rank * 4 + 4)),
        "nan": _nan(nested_perceptron(), rank),
        "first": is_first(),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(_worker, (str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


def test_a_step_of_two_processes_equals_that_of_one_with_the_whole_batch(folder: Path) -> None:
    alone = nested_perceptron(dropout=0.0)
    before = copy.deepcopy(alone.state_dict())
    expected = _one_step(alone, slice(0, 8))
    for rank in range(2):
        found = torch.load(folder / f"{rank}.pt")["step"]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-12)
            assert name == "loss" or not torch.equal(tensor, before[name])


def test_processes_stay_together_when_levels_and_data_are_drawn(folder: Path) -> None:
    first, second = (torch.load(folder / f"{rank}.pt")["epochs"] for rank in range(2))
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
        assert not torch.equal(tensor, nested_perceptron().state_dict()[name]), name


def test_batch_norm_statistics_are_averaged(folder: Path) -> None:
    first, second = (torch.load(folder / f"{rank}.pt")["normed"] for rank in range(2))
    alone = [_normed(nested_resnet(), rank) for rank in range(2)]
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), name
    name = next(n for n in first if n.startswith("shared") and n.endswith("running_mean"))
    wanted = (alone[0][name] + alone[1][name]) / 2
    torch.testing.assert_close(first[name], wanted)


def test_ranges_of_rounded_levels_are_averaged(folder: Path) -> None:
    first, second = (torch.load(folder / f"{rank}.pt")["ranged"] for rank in range(2))
    alone = [_ranged(nested_resnet(), rank) for rank in range(2)]
    assert len(first) > 10
    for name, extremes in first.items():
        assert torch.equal(second[name], extremes), name
        torch.testing.assert_close(extremes, (alone[0][name] + alone[1][name]) / 2)
    assert any(not torch.equal(alone[0][name], alone[1][name]) for name in first)


def test_synchronized_batch_norms_see_the_images_of_all_processes(folder: Path) -> None:
    expected = _synchronized(nested_resnet(), slice(0, 8))
    before = nested_resnet().state_dict()
    for rank in range(2):
        found = torch.load(folder / f"{rank}.pt")["synchronized"]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-12)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in expected.items())


def test_a_loss_that_is_no_number_in_one_process_stops_all(folder: Path) -> None:
    for rank in range(2):
        assert "the loss is nan" in torch.load(folder / f"{rank}.pt")["nan"]


def test_only_the_first_process_writes(folder: Path) -> None:
    assert [torch.load(folder / f"{rank}.pt")["first"] for rank in range(2)] == [True, False]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.pt"]


def test_one_process_alone_averages_nothing() -> None:
    tensor = torch.tensor([1.0, float("inf")])
    average([tensor])
    assert tensor.tolist() == [1.0, float("inf")]
    assert (processes(), is_first()) == (1, True)
