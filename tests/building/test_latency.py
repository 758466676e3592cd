from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from nestedge.building import latency
from nestedge.building.latency import latency_of
from nestedge.building.plain import convert_level
from nestedge.errors import UsageError
from nestedge.expressions import Array
from nestedge.levels import Level
from nestedge.model import NestedModel
from nestedge.nested import Card, nest
from nestedge.plugins import Session
from nestedge.training import Evolution, parameters_of, search, space_of
from nestedge_onnx.runtime import OnnxRuntime


class SlowBySize:
    """A runtime under whose clock a run takes a microsecond for each byte of the file."""

    def __init__(self) -> None:
        self.opened: list[bytes] = []
        self.nanoseconds = 0

    def open(self, path: Path, *, threads: int = 1) -> Session:
        self.opened.append(path.read_bytes())
        return _Slow(OnnxRuntime().open(path, threads=threads), self)

    def clock(self) -> int:
        return self.nanoseconds


class _Slow:
    def __init__(self, session: Session, runtime: SlowBySize) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self._session, self._runtime = session, runtime

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._runtime.nanoseconds += 1000 * len(self._runtime.opened[-1])
        return self._session.run(inputs)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> SlowBySize:
    runtime = SlowBySize()
    monkeypatch.setattr(latency, "load_runtime", lambda name: {"onnx": runtime}[name])
    return runtime


def nested_layers() -> NestedModel:
    """Two layers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    return nest(model, torch.zeros(2, 8), {"full": 1.0}, card=Card(divisor=1)).eval()


def test_what_is_timed_is_the_file_of_the_level(runtime: SlowBySize) -> None:
    nested = nested_layers()
    before = set(nested.state_dict())
    found = latency_of(nested, clock=runtime.clock)(Level({"0": 16}))
    assert nested.levels == ("full",)
    assert set(nested.state_dict()) == before
    nested.add_level("narrow", Level({"0": 16}))
    assert runtime.opened == [convert_level(nested, "narrow", "onnx")]
    assert found == pytest.approx(len(runtime.opened[0]) / 1000)


def test_a_search_goes_by_what_is_measured(runtime: SlowBySize) -> None:
    nested = nested_layers()
    measure = latency_of(nested, clock=runtime.clock)
    widths = (16, 32, 48, 64)
    costs = {width: measure(Level({"0": width})) for width in widths}
    found = search(
        space_of(nested, width={"0": widths}),
        parameters_of(nested),
        cost=measure,
        limit=costs[48],
        evolution=Evolution(population=8, generations=4),
    )
    assert found.best.cost == costs[48]


def test_a_level_that_cannot_be_leaves_the_network_alone() -> None:
    nested = nested_layers()
    with pytest.raises(UsageError, match="no axis"):
        latency_of(nested)(Level({"nothing": 16}))
    assert nested.levels == ("full",)


def test_the_clock_of_this_machine_goes_forward() -> None:
    assert latency_of(nested_layers(), "tflite", rounds=2)(Level(0.5)) > 0


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match="onnx"):
        latency_of(nested_layers(), "onyx")
