from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from nestedge.nested import NestedModel, nest
from nestedge.training import Objective, Step, train
from nestedge.training.precision import MixedPrecision, Precision


def _network() -> NestedModel:
    torch.manual_seed(0)
    return nest(torch.nn.Linear(6, 3), torch.zeros(2, 6), {"full": 1.0})


def _objective(dtypes: list[torch.dtype], factor: float = 1.0) -> Objective:
    def objective(nested: NestedModel, inputs: Any, _: Any, __: Step) -> Iterator[torch.Tensor]:
        output = nested(inputs)
        dtypes.append(output.dtype)
        yield output.float().square().mean() * factor

    return objective


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_only_the_forward_pass_is_in_the_narrower_type(
    precision: Precision, dtype: torch.dtype
) -> None:
    nested, dtypes = _network(), list[torch.dtype]()
    exact = copy.deepcopy(nested)
    batches = [(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), None)]
    runs: list[tuple[NestedModel, Precision]] = [(nested, precision), (exact, "float32")]
    for network, used in runs:
        optimizer = SGD(network.parameters(), 0.5)
        objective = _objective(dtypes)
        train(network, batches, epochs=3, objective=objective, optimizer=optimizer, precision=used)
    assert dtypes == [dtype] * 3 + [torch.float32] * 3
    for found, expected in zip(nested.parameters(), exact.parameters(), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
        assert torch.equal(found, expected) == (precision == "float32")


def test_a_step_whose_gradients_overflow_is_left_out_with_that_of_the_schedule() -> None:
    nested = _network()
    before = copy.deepcopy(nested.state_dict())
    optimizer = SGD(nested.parameters(), 0.5)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(
        nested,
        # Scaled by 65536, the gradients are beyond single precision.
        [(torch.ones(8, 6), None)],
        epochs=1,
        objective=_objective([], factor=1e34),
        optimizer=optimizer,
        schedule=schedule,
        precision="float16",
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in nested.state_dict().items())
    assert schedule.get_last_lr() == [0.5]


def test_the_scale_of_the_loss_is_kept() -> None:
    first, second = (MixedPrecision("float16", "cpu") for _ in range(2))
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], 0.1)
    first.backward(weight.sum() * 1e38)
    assert first.step(optimizer) is False
    second.load_state_dict(first.state_dict())
    assert (
        second.state_dict() == first.state_dict() != MixedPrecision("float16", "cpu").state_dict()
    )
