from __future__ import annotations

import pytest
import torch

from nestedge.materialization import materialize
from tests.conversions import nested_resnet as single_precision_resnet
from tests.networks import nested_resnet


# A kernel is chosen by the batch: from 16 images on another one convolves.
@pytest.mark.parametrize("batch", [1, 2, 3, 16, 20])
def test_a_materialised_level_takes_any_batch(batch: int) -> None:
    nested = nested_resnet()
    physical = materialize(nested, "small").module()
    images = torch.randn(batch, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad(), nested.at("small"):
        expected = nested(images)
    with torch.no_grad():
        torch.testing.assert_close(physical(images), expected, rtol=0, atol=1e-12)


def test_the_batch_of_a_materialised_level_has_no_condition() -> None:
    # In single precision more kernels are to be had than in double.
    program = materialize(single_precision_resnet(), "medium")
    (shape,) = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    assert isinstance(shape[0], torch.SymInt)
    assert program.module()(torch.zeros(17, 3, 8, 8)).shape == (17, 10)
