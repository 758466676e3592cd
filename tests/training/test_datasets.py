from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nestedge.errors import MissingDependencyError, UsageError
from nestedge.preprocessing import Preprocessing
from nestedge.training.datasets import (
    DataSet,
    ImageTensor,
    channel_statistics,
    cifar,
    digits,
    spread,
    with_fewer,
)
from nestedge.training.image_batches import (
    Augmentation,
    as_inputs,
    cropped_and_flipped,
    plain_batches,
    training_batches,
)

GREY = Preprocessing("input", scale=1 / 255, mean=(0.3,), std=(0.4,), colour="GRAY")
CPU = torch.device("cpu")


def _images(count: int, *, channels: int = 1, side: int = 4) -> ImageTensor:
    """Images whose first pixel is their number."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, side, side)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    pixels[:, 0, 0, 0] = torch.arange(count)
    return ImageTensor(pixels, torch.arange(count) % 3)


def _data(count: int) -> DataSet:
    return DataSet(("a", "b", "c"), _images(count), _images(3))


def test_the_digits_are_split_and_every_class_is_in_both_parts() -> None:
    data = digits()
    assert data.labels == tuple("0123456789")
    assert data.train.shape == (1, 8, 8)
    assert [len(part.classes) for part in (data.train, data.test)] == [1347, 450]
    for part in (data.train, data.test):
        shares = torch.bincount(part.classes, minlength=10) / len(part.classes)
        assert shares.min() > 0.09
        assert shares.max() < 0.11
    pixels = data.train.pixels(range(1347))
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_without_scikit_learn_the_line_to_type_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nestedge\[demo\]'"):
        digits()


def _fake_torchvision(monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]) -> None:
    def make(root: str, **options: Any) -> SimpleNamespace:
        asked.append({"root": root, **options})
        if not Path(root).is_dir():
            raise RuntimeError("Dataset not found or corrupted.")
        count = 6 if options["train"] else 3
        return SimpleNamespace(
            data=np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3),
            targets=[0, 1, 2] * (count // 3),
            classes=["cat", "dog", "owl"],
        )

    torchvision, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    datasets.CIFAR10 = datasets.CIFAR100 = make  # type: ignore[attr-defined]
    torchvision.datasets = datasets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_cifar_comes_from_torchvision_which_is_told_to_download_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = list[dict[str, Any]]()
    _fake_torchvision(monkeypatch, asked)
    data = cifar("cifar10", tmp_path)
    assert data.labels == ("cat", "dog", "owl")
    assert data.train.shape == (3, 2, 2)
    assert data.test.classes.tolist() == [0, 1, 2]
    # Channels come first: red is every third number.
    assert data.train.pixels([0])[0, 0].tolist() == [[0, 3], [6, 9]]
    assert [(call["train"], call["download"]) for call in asked] == [(True, False), (False, False)]


def test_cifar_that_is_not_there_is_not_downloaded_and_the_error_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _fake_torchvision(monkeypatch, [])
    with pytest.raises(UsageError, match=r"none: no whole cifar100 .* nothing is downloaded"):
        cifar("cifar100", tmp_path / "none")


def test_without_torchvision_the_line_to_type_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nestedge\[vision\]'"):
        cifar("cifar10", tmp_path)


def test_torchvision_itself_reads_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as CIFAR-10 is unpacked, of two images a file."""
    datasets = pytest.importorskip("torchvision.datasets")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        content = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat", "dog"]}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = cifar("cifar10", tmp_path)
    assert data.labels == ("cat", "dog")
    assert data.train.classes.tolist() == [0, 1] * 5
    assert data.test.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("options", "count"),
    [({"limit": 30}, 30), ({"fraction": 0.1}, 9), ({"fraction": 0.5, "limit": 12}, 12), ({}, 90)],
    ids=["limit", "fraction", "both", "neither"],
)
def test_fewer_training_images_are_of_every_class_alike(
    options: dict[str, Any], count: int
) -> None:
    found = with_fewer(_data(90), **options)
    assert torch.bincount(found.train.classes).tolist() == [count // 3] * 3
    assert len(set(found.train.pixels(range(count))[:, 0, 0, 0].tolist())) == count
    assert len(found.test.classes) == 3


def test_fewer_images_than_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 3 training images, one a class, found 2 of 90"):
        with_fewer(_data(90), limit=2)


def test_places_are_spread_evenly_and_different() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 9) == [0, 1, 2]


def test_channel_statistics_are_those_of_all_pixels() -> None:
    images = _images(200, channels=3)
    mean, deviation = channel_statistics(images)
    values = images.tensor.double() / 255
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)).numpy(), atol=5.1e-5)
    expected = values.permute(1, 0, 2, 3).flatten(1).std(1, correction=0)
    np.testing.assert_allclose(deviation, expected.numpy(), atol=5.1e-5)


def test_statistics_of_nothing_or_of_one_colour_are_refused() -> None:
    with pytest.raises(UsageError, match="expected training images, found none"):
        channel_statistics(_images(3).subset([]))
    flat = ImageTensor(torch.full((2, 1, 2, 2), 9, dtype=torch.uint8), torch.zeros(2))
    with pytest.raises(UsageError, match="channel 0 all alike: give mean and std"):
        channel_statistics(flat)


@pytest.mark.parametrize("colour", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_inputs_are_the_numbers_that_a_device_gives(layout: Any, colour: Any) -> None:
    channels = 1 if colour == "GRAY" else 3
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.5, 0.6, 0.7)[:channels]
    steps = Preprocessing("x", scale=1 / 255, mean=mean, std=std, colour=colour, layout=layout)
    pixels = _images(5, channels=channels).tensor
    found = as_inputs(pixels, steps)
    for image, given in zip(pixels.permute(0, 2, 3, 1).numpy(), found, strict=True):
        assert np.array_equal(steps.apply(image, size=(4, 4))[0], given.numpy())


def test_a_crop_is_a_part_of_the_padded_image_or_its_mirror() -> None:
    torch.manual_seed(0)
    pixels = _images(200, channels=3, side=5).tensor
    found = cropped_and_flipped(pixels, padding=2)
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    seen = set[tuple[int, int, bool]]()
    for image, crop in zip(padded, found, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if torch.equal(
                crop.flip(2) if mirrored else crop, image[:, top : top + 5, left : left + 5]
            )
        ]
        assert len(matches) == 1
        seen.update(matches)
    # Of 50 places all but a few are drawn in 200 images.
    assert len(seen) > 40


def _numbers(count: int, *, batch: int, seed: int, augmentation: Augmentation) -> list[Any]:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"workers": 0, "device": CPU, "seed": seed}
    found = training_batches(
        _images(count), GREY, batch=batch, augmentation=augmentation, **options
    )
    assert len(found) == count // batch
    return [[inputs.tolist(), classes.tolist()] for _ in range(2) for inputs, classes in found]


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_a_seed_decides_what_is_drawn(augmentation: Augmentation) -> None:
    first = _numbers(20, batch=6, seed=1, augmentation=augmentation)
    assert first == _numbers(20, batch=6, seed=1, augmentation=augmentation)
    assert first != _numbers(20, batch=6, seed=2, augmentation=augmentation)
    # Another order in the second epoch.
    assert first[0] != first[3]
    assert all(len(classes) == 6 for _, classes in first)


def test_workers_change_nothing_of_what_is_drawn() -> None:
    def drawn(workers: int) -> list[Any]:
        torch.manual_seed(0)
        batches = training_batches(
            _images(20),
            GREY,
            batch=6,
            augmentation="crop-flip",
            workers=workers,
            device=CPU,
            seed=0,
        )
        return [[inputs.tolist(), classes.tolist()] for inputs, classes in batches]

    assert drawn(0) == drawn(1)


def test_images_keep_their_classes_and_plain_batches_their_order() -> None:
    images = _images(10)
    batches = list(plain_batches(images, GREY, batch=4, device=CPU))
    assert [len(classes) for _, classes in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), as_inputs(images.tensor, GREY))
    assert torch.cat([classes for _, classes in batches]).tolist() == images.classes.tolist()
    for inputs, classes in training_batches(
        images, GREY, batch=5, augmentation="none", workers=0, device=CPU, seed=0
    ):
        numbers = torch.round((inputs[:, 0, 0, 0] * 0.4 + 0.3) * 255).long()
        assert (numbers % 3).tolist() == classes.tolist()


def test_a_batch_larger_than_all_images_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.batch: expected at most 5, .* found 6"):
        training_batches(
            _images(5), GREY, batch=6, augmentation="none", workers=0, device=CPU, seed=0
        )
