from __future__ import annotations

import numpy as np
import pytest

from nestedge.artifact import Reference
from nestedge_tensorrt.samples import in_batches

# Three cases of one sample each; the output has two rows for each sample.
REFERENCE = Reference({"x": np.arange(6).reshape(3, 1, 2)}, {"y": np.arange(12).reshape(3, 2, 2)})


@pytest.mark.parametrize(
    ("size", "samples"),
    [(1, [[0], [1], [2]]), (2, [[0, 1], [2, 0]]), (4, [[0, 1, 2, 0]])],
)
def test_cases_are_put_together_and_the_last_batch_is_filled_up(
    size: int, samples: list[list[int]]
) -> None:
    found = in_batches(REFERENCE, size)
    assert found.cases == len(samples)
    for case, wanted in enumerate(samples):
        x = [REFERENCE.inputs["x"][index] for index in wanted]
        y = [REFERENCE.outputs["y"][index] for index in wanted]
        np.testing.assert_array_equal(found.inputs["x"][case], np.concatenate(x))
        np.testing.assert_array_equal(found.outputs["y"][case], np.concatenate(y))
