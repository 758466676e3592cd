from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nestedge.calibration import Calibration
from nestedge.errors import UsageError
from nestedge.inputs import as_call, calibration_of, calibration_tensors
from nestedge.nested import NestedModel, nest


class _Mixed(nn.Module):
    """An image, a place in a dict, and a table that has no batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.place = nn.Embedding(5, 4)

    def forward(self, image: Tensor, where: dict[str, Tensor], table: Tensor) -> Tensor:
        y: Tensor = self.conv(image).mean((2, 3)) + self.place(where["place"]) + table
        return y


def _inputs(cases: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    image = torch.arange(cases * 12.0).reshape(cases, 3, 2, 2)
    return image, {"place": torch.arange(cases) % 5}, torch.full((1, 4), 2.0)


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    return nest(_Mixed(), _inputs(3), {"small": 0.5})


def _calibrated(nested: NestedModel, inputs: object) -> Calibration:
    nested.calibrate_with(inputs)
    assert nested.calibration is not None
    return nested.calibration


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [(1, (1,), {}), ((1, 2), (1, 2), {}), ([1], (1,), {}), ({"a": 1}, (), {"a": 1})],
)
def test_inputs_become_a_call(inputs: object, args: object, kwargs: object) -> None:
    assert as_call(inputs) == (args, kwargs)


def test_calibration_data_has_an_axis_of_cases_before_a_batch_of_one(nested: NestedModel) -> None:
    found = _calibrated(nested, _inputs(6))
    assert found.cases == 6
    shapes = {name: array.shape for name, array in found.inputs.items()}
    assert shapes == {"image": (6, 1, 3, 2, 2), "where_place": (6, 1), "table": (6, 1, 4)}
    assert found.inputs["where_place"][:, 0].tolist() == [0, 1, 2, 3, 4, 0]
    assert found.inputs["image"][4, 0, 0, 0, 0] == 4 * 12
    assert (found.inputs["table"] == 2).all()


def test_nest_takes_calibration_data_as_it_takes_examples(nested: NestedModel) -> None:
    image, where, table = _inputs(4)
    keywords = {"table": table, "image": image, "where": where}
    given = nest(_Mixed(), _inputs(3), {}, calibration=keywords).calibration
    assert given is not None
    assert given.sha256 == _calibrated(nested, _inputs(4)).sha256


def test_a_network_has_no_calibration_data_until_it_is_given_some() -> None:
    assert nest(nn.Linear(4, 2), torch.zeros(2, 4), {}).calibration is None


def test_the_data_stays_when_the_tensors_of_the_user_change(nested: NestedModel) -> None:
    inputs = _inputs(2)
    found = _calibrated(nested, inputs)
    inputs[0].fill_(9)
    inputs[2].fill_(9)
    assert found.inputs["image"][0, 0, 0, 0].tolist() == [0, 1]
    assert found.inputs["table"].max() == 2


def test_the_hash_is_of_the_values(nested: NestedModel) -> None:
    image, where, table = _inputs(2)
    first = _calibrated(nested, (image, where, table)).sha256
    assert _calibrated(nested, (image.clone(), where, table)).sha256 == first
    assert _calibrated(nested, (image + 1, where, table)).sha256 != first
    assert _calibrated(nested, (image, where, table + 1)).sha256 != first


def test_the_tensors_make_the_same_data_again(nested: NestedModel) -> None:
    program, data = nested.elastic.program, _calibrated(nested, _inputs(5))
    tensors = calibration_tensors(program, data)
    assert tensors["image"].shape == (5, 3, 2, 2)
    assert tensors["table"].shape == (1, 4)
    again = calibration_of(program, tensors)
    assert again.sha256 == data.sha256
    assert all((again.inputs[name] == array).all() for name, array in data.inputs.items())


IMAGE, WHERE, TABLE = _inputs(4)
WRONG: dict[str, tuple[object, str]] = {
    "nested otherwise": (
        (IMAGE, WHERE["place"], TABLE),
        r"input\.where: expected a dict of \['place'\], found Tensor$",
    ),
    "an input less": ((IMAGE, WHERE), r"input: expected a dict of \['image', 'where', 'table'\]"),
    "unknown keyword": (
        {"image": IMAGE, "where": WHERE, "tabel": TABLE},
        r"input: expected a dict of .*, found \['image', 'tabel', 'where'\]$",
    ),
    "another shape": (
        (IMAGE[:, :2], WHERE, TABLE),
        r"input 'image': expected shape \['batch', 3, 2, 2\], found \[4, 2, 2, 2\]",
    ),
    "a case without a batch axis": (
        (IMAGE[0], WHERE, TABLE),
        r"input 'image': expected shape \['batch', 3, 2, 2\], found \[3, 2, 2\]",
    ),
    "many tables": (
        (IMAGE, WHERE, TABLE.repeat(4, 1)),
        r"input 'table': expected shape \[1, 4\], found \[4, 4\]",
    ),
    "another dtype": (
        (IMAGE.double(), WHERE, TABLE),
        r"tensor 'image': expected float32 of shape \[4, 3, 2, 2\], found float64 of shape",
    ),
    "another number of cases": (
        (IMAGE, {"place": WHERE["place"][:3]}, TABLE),
        r"tensor 'where_place': expected int64 of shape \[4\], found int64 of shape \[3\]",
    ),
    "no case": (
        (IMAGE[:0], {"place": WHERE["place"][:0]}, TABLE),
        "expected at least one case along axis 0, found none",
    ),
    "not a number": (
        (IMAGE, WHERE, TABLE / 0 * 0),
        r"input 'table': expected finite numbers, found nan at \[0, 0\]",
    ),
    "infinity": (
        (IMAGE.where(IMAGE != 7, torch.inf), WHERE, TABLE),
        r"input 'image': expected finite numbers, found inf at \[0, 1, 1, 1\]",
    ),
}


@pytest.mark.parametrize(("inputs", "message"), WRONG.values(), ids=WRONG)
def test_wrong_calibration_data_is_refused_and_the_old_kept(
    nested: NestedModel, inputs: object, message: str
) -> None:
    before = _calibrated(nested, _inputs(2))
    with pytest.raises(UsageError, match=f"^calibration: .*{message}"):
        nested.calibrate_with(inputs)
    assert nested.calibration is before


def test_an_input_that_numpy_lacks_cannot_be_calibrated() -> None:
    nested = nest(nn.Linear(4, 2, dtype=torch.bfloat16), torch.zeros(2, 4).bfloat16(), {})
    with pytest.raises(UsageError, match="input 'input' is of bfloat16, which numpy lacks"):
        nested.calibrate_with(torch.zeros(2, 4).bfloat16())
