from __future__ import annotations

import numpy as np
import pytest

from nestedge.demo.data import NAMES, PREPROCESSING, DigitsData, load_digits
from nestedge.demo.training import LEVELS, as_batches, train_digits
from nestedge.materialization import state_dict
from nestedge.nested import NestedModel
from nestedge.training import Progress, accuracy


@pytest.fixture(scope="module")
def reports() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def trained(reports: list[Progress]) -> tuple[NestedModel, DigitsData]:
    return train_digits(reports.append)


def test_the_small_level_is_right_in_95_of_100_cases_and_the_full_one_in_98(
    trained: tuple[NestedModel, DigitsData], reports: list[Progress]
) -> None:
    nested, data = trained
    found = {level: accuracy(nested, as_batches(data.test), level) for level in LEVELS}
    assert found["small"] > 95
    assert found["medium"] > 96
    assert found["full"] > 98
    assert dict(reports[-1].accuracies) == found
    assert not nested.training


def test_every_level_has_widths_of_its_own(trained: tuple[NestedModel, DigitsData]) -> None:
    nested, _ = trained
    weights = {level: state_dict(nested, level) for level in nested.levels}
    stems = {level: len(found["stem.weight"]) for level, found in weights.items()}
    heads = {level: found["head.weight"].shape[1] for level, found in weights.items()}
    assert stems == {"small": 8, "medium": 16, "full": 32}
    assert heads == {"small": 16, "medium": 32, "full": 64}


def test_the_network_knows_how_to_be_fed(trained: tuple[NestedModel, DigitsData]) -> None:
    nested, data = trained
    assert nested.card.labels == NAMES
    assert nested.card.preprocessing == PREPROCESSING
    assert list(nested.examples) == [PREPROCESSING.input]
    assert data.test.inputs().shape == (450, 1, 8, 8)
    single = PREPROCESSING.apply(data.test.images[7], size=(8, 8))
    assert np.array_equal(data.test.inputs()[7:8], single)


def test_the_splits_are_apart_and_hold_every_digit_alike() -> None:
    data = load_digits()
    assert len(data.train.images) + len(data.test.images) == 1797
    for split in (data.train, data.test):
        counts = np.bincount(split.digits) / len(split.digits)
        assert counts.min() > 0.09
        assert counts.max() < 0.11
        assert split.images.min() == 0
        assert split.images.max() == 255
    again = load_digits()
    assert np.array_equal(again.test.images, data.test.images)


def test_training_images_have_mean_0_and_deviation_1() -> None:
    inputs = load_digits().train.inputs()
    assert abs(float(inputs.mean())) < 0.01
    assert abs(float(inputs.std()) - 1) < 0.01
