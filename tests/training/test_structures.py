from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from nestedge.elastic import Elastic
from nestedge.errors import UsageError
from nestedge.nested import nest
from nestedge.training.structures import Structure, find_candidates
from tests.training.selectable import NETWORKS, nested_in_double


@pytest.fixture(scope="module")
def elastics() -> dict[str, Elastic]:
    return {name: nested_in_double(make()).elastic for name, make in NETWORKS.items()}


def _units(
    elastic: Elastic, structures: Mapping[Structure, str | Sequence[str]] | None = None
) -> dict[str, tuple[int, ...]]:
    return {c.name: c.units for c in find_candidates(elastic, structures)}


def test_by_default_all_that_can_be_switched_off_is_a_candidate(
    elastics: dict[str, Elastic],
) -> None:
    found = {c.name: (c.structure, len(c.units)) for c in find_candidates(elastics["resnet"])}
    assert found == {
        "layer1.0.conv1": ("neurons", 16),
        "layer1.1.conv1": ("neurons", 16),
        "layer2.0.conv1": ("neurons", 32),
        "layer2.1.conv1": ("neurons", 32),
        "layer1": ("blocks", 2),
        "layer2": ("blocks", 2),
    }
    found = {c.name: (c.structure, len(c.units)) for c in find_candidates(elastics["grouped"])}
    assert found == {
        "blocks.0.conv1": ("groups", 4),
        "blocks.1.conv1": ("groups", 4),
        "blocks": ("blocks", 2),
    }


@pytest.mark.parametrize(
    ("structures", "expected"),
    [
        pytest.param({"neurons": "layer1.*"}, ["layer1.0.conv1", "layer1.1.conv1"], id="pattern"),
        pytest.param({"blocks": "*"}, ["layer1", "layer2"], id="kind"),
        pytest.param(
            {"neurons": ["layer1.0.*", "*2.1.*"]}, ["layer1.0.conv1", "layer2.1.conv1"], id="two"
        ),
        pytest.param({"neurons": "conv1"}, ["conv1"], id="trunk by name"),
        pytest.param(
            {"neurons": "layer2.0.conv2[0:8]"}, ["layer2.0.conv2[0:8]"], id="name with brackets"
        ),
        pytest.param(
            {"neurons": "layer2.0.conv2[[]*"}, None, id="several norms and a pattern with wildcards"
        ),
    ],
)
def test_patterns_choose_among_the_candidates(
    elastics: dict[str, Elastic],
    structures: dict[Structure, str | Sequence[str]],
    expected: list[str] | None,
) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="neurons: none that a factor can switch off fits"):
            find_candidates(elastics["resnet"], structures)
        return
    assert list(_units(elastics["resnet"], structures)) == expected


def test_of_a_stage_some_blocks_may_be_candidates(elastics: dict[str, Elastic]) -> None:
    (candidate,) = find_candidates(elastics["preactivation"], {"blocks": "stages.1.0"})
    assert (candidate.name, candidate.units, candidate.size) == ("stages.1", (0,), 2)
    assert candidate.scaled == {"stages.1.0.conv3.weight": (0,) * 32}
    assert candidate.silenced == {0: {"stages.1.0.conv3.weight": (32, 8, 1, 1)}}
    assert not candidate.removable


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ({"neuron": "*"}, r"structures: expected some of .*found 'neuron'; did you mean 'neurons'"),
        ({"groups": "*"}, r"groups: none .* fits '\*'; the network has none"),
        ({"blocks": "layer3.*"}, r"blocks: none .* fits 'layer3.\*'; the network has 'layer1.0', "),
        ({}, "structures: found none that a factor can switch off"),
    ],
)
def test_what_fits_nothing_is_refused(
    elastics: dict[str, Elastic], structures: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_candidates(elastics["resnet"], structures)


def test_a_network_without_batch_norms_and_blocks_has_no_candidate() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(UsageError, match="found none that a factor can switch off"):
        find_candidates(nest(model, torch.zeros(2, 4), {}).elastic)
