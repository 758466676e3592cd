from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import numpy as safetensors

from nestedge.artifact import reference_bytes
from nestedge.building.cells import Draft, prepare_level
from nestedge.building.fallback import Limit, draft_within, fewest, find_limit
from nestedge.errors import ConversionError, UsageError
from nestedge.nested import nest
from nestedge.profiling.labelled import LabelledData
from nestedge.reasons import conversion_error
from tests.fakes import DESCRIPTION, FakeRuntime, linear, model_bytes
from tests.outliers import nested_outlier, outlier_data

X = np.random.default_rng(3).standard_normal((20, 1, 2, 2)).astype(np.float32)
LAYERS = ("worst", "worse", "bad", "fair", "good")


@pytest.mark.parametrize("layers", range(20))
def test_the_fewest_layers_are_found_in_few_conversions(layers: int) -> None:
    for needed in range(1, layers + 1):
        tried: list[int] = []

        def suffices(count: int, tried: list[int] = tried, needed: int = needed) -> bool:
            tried.append(count)
            return count >= needed

        assert fewest(layers, suffices) == needed
        assert len(set(tried)) == len(tried) <= 2 * math.ceil(math.log2(layers)) + 1
        assert min(tried) >= 1
        assert max(tried) <= layers


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 8, 11])
def test_no_more_than_all_layers_are_tried(layers: int) -> None:
    tried: list[int] = []

    def suffices(count: int) -> bool:
        tried.append(count)
        return False

    assert fewest(layers, suffices) is None
    assert tried == sorted(set(tried))
    assert tried[-1:] == ([layers] if layers else [])


def _labels() -> np.ndarray[Any, Any]:
    tensors = safetensors.load(model_bytes(0))
    labels: np.ndarray[Any, Any] = linear(X, tensors["weight"], tensors["bias"]).argmax(-1)
    return labels


def _limit(points: float) -> Limit:
    labels = _labels()
    return Limit(points, LabelledData(X, labels), right=len(labels))


class _Maker:
    """Makes files that answer rightly once enough layers are in half precision."""

    def __init__(self, needed: int, *, all_refused: bool = False) -> None:
        self.made: list[tuple[str, ...]] = []
        self._needed, self._all_refused = needed, all_refused

    def __call__(self, weights: Sequence[str]) -> Draft:
        self.made.append(tuple(weights))
        if self._all_refused and len(weights) == len(LAYERS):
            raise conversion_error("nothing-to-quantise", "nothing in it can be quantised")
        tensors = safetensors.load(model_bytes(0))
        if len(weights) < self._needed:
            tensors["weight"] = -tensors["weight"]
        files = {
            "model.fake": safetensors.save(tensors),
            "reference.safetensors": reference_bytes(
                {"input": X[:1, None]}, {"logits": np.zeros((1, 1, 3), np.float32)}
            ),
        }
        return Draft(replace(DESCRIPTION, half_layers=tuple(weights)), files)


def _draft(maker: _Maker, points: float, ranked: Sequence[str] = LAYERS) -> Draft:
    return draft_within(_limit(points), maker, ranked=lambda: ranked, runtime=FakeRuntime())


def test_the_worst_layers_fall_back_and_no_more_of_them_than_it_takes() -> None:
    maker = _Maker(needed=3)
    description = _draft(maker, 1.0).description
    assert description.half_layers == LAYERS[:3]
    assert maker.made == [LAYERS[:n] for n in (0, 1, 2, 4, 3)]
    drop = description.drop
    assert drop is not None
    assert (drop.allowed, drop.after, drop.exact_percent, drop.samples) == (1.0, 0.0, 100.0, 20)
    assert drop.before > 1
    assert drop.data_sha256 == _limit(1.0).data.sha256


def test_a_file_that_loses_little_is_made_once_and_no_layer_is_ranked() -> None:
    def refuse() -> Sequence[str]:
        raise AssertionError("layers were ranked")

    maker = _Maker(needed=0)
    made = draft_within(_limit(0.0), maker, ranked=refuse, runtime=FakeRuntime())
    assert maker.made == [()]
    assert made.description.half_layers == ()
    assert made.description.drop is not None
    assert made.description.drop.before == made.description.drop.after == 0


def test_a_drop_of_just_as_much_as_allowed_is_enough() -> None:
    maker = _Maker(needed=9)
    with pytest.raises(ConversionError) as caught:
        _draft(maker, 1.0)
    lost = float(str(caught.value).split()[2])
    assert _draft(_Maker(needed=9), lost).description.half_layers == ()


@pytest.mark.parametrize(
    ("maker", "ranked", "said"),
    [
        (_Maker(9), LAYERS, "in 8 bits and .* with the worst 1 of 5 in half precision, at most 1 "),
        (_Maker(9, all_refused=True), LAYERS, "with the worst 1 of 5 in half precision"),
        (_Maker(9), (), "at most 1 are allowed, and none of the layers can fall back"),
        (_Maker(9, all_refused=True), LAYERS[:0], "none of the layers can fall back"),
    ],
    ids=["all layers", "nothing left", "no layer", "neither"],
)
def test_what_no_layer_helps_fails_and_says_how_much_is_lost(
    maker: _Maker, ranked: Sequence[str], said: str
) -> None:
    with pytest.raises(
        ConversionError, match=rf"it loses \d+\.\d\d points of accuracy .*{said}"
    ) as e:
        _draft(maker, 1.0, ranked)
    assert e.value.diagnosis.code == "accuracy-lost"
    assert max(map(len, maker.made)) <= len(ranked)


def test_another_failure_of_a_conversion_is_told_as_it_is() -> None:
    def fail(weights: Sequence[str]) -> Draft:
        raise conversion_error("quantiser-failed", "the quantiser gave up")

    with pytest.raises(ConversionError, match="the quantiser gave up"):
        draft_within(_limit(1.0), fail, ranked=lambda: LAYERS, runtime=FakeRuntime())


def test_a_level_is_right_where_the_network_is() -> None:
    data = outlier_data()
    labels = np.array(data.labels, np.int64)
    labels[:50] = (labels[:50] + 1) % 3
    level = prepare_level(nested_outlier(), "full")
    limit = find_limit(level, LabelledData(data.inputs, labels), points=0.5)
    assert limit.right == 150
    assert limit.drop(149) == 0.5
    assert limit.drop(151) == -0.5


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.zeros((2, 6), np.float32), [0, 3], r"labels must be 0\.\.2, one of 3 classes, got 0"),
        (np.zeros((2, 6), np.float32), [0, -1], "got -1"),
        (np.zeros((2, 6), np.float32), [0.0, 1.0], "labels must be integers, got float64"),
        (np.zeros((2, 6), np.float32), [0], r"labels of shape \(cases,\), got \(2, 6\) and \(1,\)"),
        (np.zeros((2, 5), np.float32), [0, 1], "'x'"),
    ],
    ids=["classes", "negative", "fractions", "count", "shape"],
)
def test_data_that_is_not_for_the_network_is_refused(
    inputs: np.ndarray[Any, Any], labels: list[float], message: str
) -> None:
    level = prepare_level(nested_outlier(), "full")
    with pytest.raises(UsageError, match=rf"--data: .*{message}"):
        find_limit(level, LabelledData(inputs, np.array(labels)), points=1.0)


def test_what_is_no_classifier_is_refused() -> None:
    class Halved(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.linear(x)
            return scores.reshape(-1, 2, 2)

    data = LabelledData(np.zeros((1, 6), np.float32), np.array([0]))
    nested = nest(Halved(), torch.zeros(2, 6), {"full": 1.0})
    with pytest.raises(UsageError, match=r"level 'full': .* found \(1, 2, 2\); leave out --max"):
        find_limit(prepare_level(nested, "full"), data, points=1.0)
