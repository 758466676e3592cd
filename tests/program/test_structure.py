from __future__ import annotations

from typing import Any

import pytest
import torch

from nestedge.program.structure import describe, rebuild, restricted

T = torch.empty(0)

RESTRICTED: dict[str, tuple[Any, set[str], Any]] = {
    "a dict": ({"a": T, "b": T}, {"b"}, {"b": "b"}),
    "a list": ([T, T, T], {"_0", "_2"}, ["_0", "_2"]),
    "a tuple of one": ((T, T), {"_1"}, ("_1",)),
    "a container that is left without any": ({"a": [T, None], "b": T}, {"b"}, {"b": "b"}),
    "constants beside": ({"a": [T, 3], "b": None, "c": T}, {"a_0"}, {"a": ["a_0", 3], "b": None}),
    "containers of constants": ({"a": [3], "b": [], "c": T}, {"c"}, {"a": [3], "b": [], "c": "c"}),
}


@pytest.mark.parametrize(
    ("value", "names", "left"), list(RESTRICTED.values()), ids=list(RESTRICTED)
)
def test_a_structure_is_left_with_some_tensors(value: Any, names: set[str], left: Any) -> None:
    found = restricted(describe(value, "", what="output"), names)
    assert found is not None
    leaves: Any = found.names()
    assert rebuild(found, leaves) == left


def test_nothing_is_left_of_a_structure_without_its_tensors() -> None:
    assert restricted(describe([T, None], "", what="output"), set()) is None
