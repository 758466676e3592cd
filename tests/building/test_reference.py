from __future__ import annotations

import numpy as np
import torch

from nestedge.building.reference import reference_inputs, reference_outputs
from tests.conversions import nested_resnet


def test_reference_inputs_are_the_example_and_others() -> None:
    nested = nested_resnet()
    inputs = reference_inputs(nested, cases=3)
    (images,) = inputs.values()
    assert images.shape == (3, 1, 3, 8, 8)
    np.testing.assert_array_equal(images[0], nested.examples["x"].numpy())
    assert len({case.tobytes() for case in images}) == 3
    again = reference_inputs(nested, cases=3)
    np.testing.assert_array_equal(images, again["x"])


def test_reference_outputs_are_those_of_the_level_and_the_mode_stays() -> None:
    nested = nested_resnet().train()
    inputs = reference_inputs(nested, cases=2)
    (found,) = reference_outputs(nested, "small", inputs).values()
    assert nested.training
    with torch.no_grad(), nested.eval().at("small"):
        expected = [nested(torch.tensor(case)).numpy() for case in inputs["x"]]
    np.testing.assert_array_equal(found, np.stack(expected))
