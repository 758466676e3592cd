from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import checks as zoo_checks
from benchmarks.zoo import command
from benchmarks.zoo import levels as zoo_levels
from benchmarks.zoo import networks as zoo_networks
from benchmarks.zoo.networks import (
    Entry,
    Heads,
    Outputs,
    Subject,
    cast,
    precision,
    tensors_of,
    with_cases,
)
from benchmarks.zoo.page import page
from benchmarks.zoo.scaling import live_norms, randomise
from benchmarks.zoo.table import cost_ratios, is_exact, is_right_onnx, reason

Record = dict[str, Any]
ENTRY = Entry("small", "resnet", 1000, 1, None)


def _level(**changes: float) -> Record:
    usual = {"error": 0.0, "smallest": 1.0, "largest": 2.0, "ratio": 0.3, "seconds": 0.5}
    usual |= {"zeroed": 1e-12, "varies": 0.1}
    return {**usual, **changes}


def _record(level: Record, **changes: Any) -> Record:
    usual = {
        "network": "small",
        "check": "nestedge",
        "stage": "done",
        "form": "whole",
        "not_whole": None,
        "parameters": 1_000_000,
        "captured": 0.0,
        "levels": {"0.5": level, "0.25": level},
        "seconds": {"export": 1.0, "analysis": 0.1},
    }
    return {**usual, **changes}


class _Deep(nn.Module):
    """Sixty layers that without any scaling give numbers far from order 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(60)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.stem(images)).mean((2, 3))
        return {"out": self.layers(features)}


def test_only_what_is_missing_is_run_and_what_failed_when_asked() -> None:
    known: dict[command.Key, Record] = {
        ("a", "nestedge"): {},
        ("b", "nestedge"): {"failed": "no rule"},
    }
    names, checks = ["a", "b", "c"], ["nestedge", "onnx"]
    open_ = [("c", "nestedge"), ("a", "onnx"), ("b", "onnx"), ("c", "onnx")]
    assert command.missing(names, checks, known, retry_failed=False) == open_
    again = command.missing(names, checks, known, retry_failed=True)
    assert again == [("b", "nestedge"), *open_]


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "zoo.jsonl"
    assert command.read_records(path) == {}
    whole = json.dumps({"network": "a", "check": "onnx", "stage": "done"})
    path.write_text(f'{whole}\n{whole.replace("done", "later")}\n{{"network": "b", "che')
    records = command.read_records(path)
    assert list(records) == [("a", "onnx")]
    assert records["a", "onnx"]["stage"] == "later"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(_record(_level()), True, id="exact"),
        pytest.param(_record(_level(error=2e-9)), False, id="another value"),
        pytest.param(_record(_level(zeroed=2e-9)), False, id="another value than the user's"),
        pytest.param(_record(_level(), captured=2e-9), False, id="another network"),
        pytest.param(_record(_level(error=math.nan)), False, id="no number"),
        pytest.param(_record(_level(zeroed=math.nan)), False, id="no number of the user's"),
        pytest.param(_record(_level(smallest=0.0)), False, id="an output of zeros"),
        pytest.param(_record(_level(varies=1e-6)), False, id="what biases make of it"),
        pytest.param(_record(_level(largest=math.inf)), False, id="overflow"),
        pytest.param(_record(_level(), stage="zeroing"), False, id="not finished"),
    ],
)
def test_a_network_is_exact_when_all_levels_are_and_give_something(
    record: Record, *, expected: bool
) -> None:
    assert is_exact(record) is expected


def test_a_record_of_what_failed_before_anything_was_nested_is_not_exact() -> None:
    assert not is_exact({"network": "b", "check": "nestedge", "stage": "export", "failed": "x"})
    assert not is_exact({})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, True, id="close"),
        pytest.param({"from_true": 5e-5}, False, id="far"),
        pytest.param({"from_true": 5e-5, "is_transformer": True}, True, id="attention"),
        pytest.param({"from_true": 5e-5, "torch_from_true": 4e-5}, True, id="as far as torch"),
        pytest.param({"from_true": 5e-5, "torch_from_true": 1e-5}, False, id="further than torch"),
        pytest.param({"from_true": math.nan}, False, id="no number"),
        pytest.param({"stage": "onnxruntime"}, False, id="not run"),
        pytest.param({"from_true": 5e-5, "reference": 1e-7}, True, id="exact in double"),
        pytest.param({"from_true": 5e-5, "reference": 1e-3}, False, id="wrong in double"),
    ],
)
def test_onnx_is_right_when_it_is_as_close_to_the_truth_as_torch(
    changes: Record, *, expected: bool
) -> None:
    usual = {"stage": "done", "is_transformer": False, "from_true": 1e-6, "torch_from_true": 1e-6}
    assert is_right_onnx({**usual, **changes}) is expected


def test_costs_are_told_in_exports_and_the_dearest_further_level_counts() -> None:
    levels = {"0.75": _level(seconds=9.0), "0.5": _level(seconds=1.0), "0.25": _level(seconds=3.0)}
    record = _record(_level(), levels=levels, seconds={"export": 2.0, "analysis": 1.0})
    assert cost_ratios(record) == {"analysis": 0.5, "further level": 1.5}
    assert cost_ratios({"seconds": {"capture": 1.0}}) == {}


def test_the_page_counts_and_gives_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of what the page names, only torch is sure to be here.
    monkeypatch.setattr("benchmarks.zoo.page.version", lambda package: f"1.0 of {package}")
    failed = {"network": "b", "check": "nestedge", "stage": "export", "failed": "UsageError: a|b"}
    pruned = {"network": "small", "check": "torch-pruning", "stage": "pruning", "failed": "shape"}
    cost = _record(_level(), check="cost")
    records = {(r["network"], r["check"]): r for r in (_record(_level()), cost, failed, pruned)}
    lines = page(["small", "b", "c"], records)
    text = "\n".join(lines)
    assert "torchvision 1.0 of torchvision" in lines[4]
    assert "2 of 3 networks run: torch.export takes 1 whole and 0 in part; 1 of these 1" in text
    assert "Worst zeroed: 1.0e-12 (small)." in lines
    assert "Dearest further level: 0.50 exports (small)." in lines
    assert "Torch-Pruning: 0 of 1 run after pruning, 0 with the outputs that they had." in lines
    assert (
        "| small | 1.0 | whole | 0.5, 0.25 | 0 | 1e-12 | 1 to 2 | 0.1 | 0.30, 0.30 "
        "| 1.00 | 0.10 | 0.50 | 0.50 | 0.10 | 0.50 |  |  | fails |"
    ) in lines
    (row,) = (line for line in lines if line.startswith("| b |"))
    (head,) = (line for line in lines if line.startswith("| network |"))
    assert row.count("|") == head.count("|")
    for title, line in {
        "## Not nested": "- b: UsageError: a/b",
        "## Torch-Pruning fails": "- small: shape",
        "## Not run": "- c: not in the records",
    }.items():
        assert lines[lines.index(title) + 2] == line


def test_a_reason_names_no_folder_of_the_machine() -> None:
    text = "no rule (/opt/x/lib/site-packages/torchvision/raft.py:5: a / b) /home/me/z.py"
    assert reason(text) == "no rule (torchvision/raft.py:5: a / b) z.py"


def test_inside_a_precision_networks_compute_in_it_throughout() -> None:
    class Coordinates(nn.BatchNorm1d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            rows = torch.arange(4).float() + torch.linspace(0, 1, 4)
            return super().forward(input) + rows

    value = torch.randn(2, 4)
    with precision(torch.float64):
        subject = cast(Subject(Coordinates(4).eval(), (value,), "whole"), torch.float64)
        more = with_cases(subject, 3, seed=0)
        (output,) = tensors_of(subject.module(*subject.inputs))
    assert output.dtype == more.inputs[0].dtype == torch.float64
    assert more.inputs[0].shape == (3, 4)
    assert (more.inputs[0][:2] == value).all()
    # A rounding in between would leave single precision's digits only.
    assert (output != output.to(torch.float32)).any()
    assert subject.module.get_buffer("num_batches_tracked").dtype == torch.int64
    assert torch.zeros(1).dtype == torch.ones(1, dtype=torch.int64).float().dtype == torch.float32


def test_a_deep_network_gives_numbers_of_order_one_after_redrawing() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    subject = Subject(_Deep().eval(), (images,), "whole")
    randomise(subject, seed=0)
    (output,) = tensors_of(subject.module(images))
    assert 0.3 < output.abs().max() < 30
    assert (output[0] - output[1]).abs().max() > 0.3
    assert all(bias.abs().max() > 0.05 for n, bias in subject.module.named_parameters() if "b" in n)


def test_the_smallest_size_that_a_network_takes_is_used() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 94 * 94, 2))
    (images,) = zoo_networks._smallest(ENTRY, network, seed=1)
    assert images.shape == (2, 3, 96, 96)
    with pytest.raises(ValueError, match="small takes no image of 1 to 518"):
        zoo_networks._smallest(ENTRY, nn.Conv2d(5, 4, 3), seed=1)


def test_a_network_is_nested_and_its_levels_are_what_zeroing_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 5))
    forms = (lambda: Subject(network.eval(), (images,), "whole"),)
    monkeypatch.setattr(zoo_levels, "subjects", lambda _: forms)
    *_, record = zoo_checks.check_nesting(ENTRY)
    assert record["stage"] == "done"
    assert record["form"] == "whole"
    assert list(record["levels"]) == ["0.75", "0.5", "0.25"]
    for width, level in record["levels"].items():
        assert level["error"] <= 1e-12
        assert level["zeroed"] <= 1e-12
        assert level["ratio"] == pytest.approx(float(width), rel=0.02)
    json.dumps(record)
    *_, cost = zoo_checks.check_cost(ENTRY)
    assert cost["stage"] == "done"
    assert cost["seconds"].keys() == {"capture", "export", "analysis"}
    assert list(cost["levels"]) == ["0.75", "0.5", "0.25"]
    assert cost_ratios(cost).keys() == {"analysis", "further level"}


def test_a_network_that_nothing_takes_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spectrum(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = torch.fft.rfft(images).abs()
            return found

    forms = (lambda: Subject(Spectrum(), (torch.randn(2, 3),), "outputs as a tuple"),)
    monkeypatch.setattr(zoo_levels, "randomise", lambda _, seed: None)
    monkeypatch.setattr(zoo_levels, "subjects", lambda _: forms)
    with pytest.raises(Exception, match=r"aten\.fft") as caught:
        list(zoo_checks.check_nesting(ENTRY))
    assert zoo_checks.failure(caught.value)["failed"].startswith("UsageError: ")


def test_a_layer_norm_over_what_lives_is_that_of_the_narrower_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, narrow = nn.LayerNorm(8), nn.LayerNorm(5)
    value = torch.randn(4, 8, generator=generator)
    with torch.no_grad():
        for tensor in (wide.weight, wide.bias):
            tensor.copy_(torch.randn(8, generator=generator))
            tensor[5:] = 0
        narrow.weight.copy_(wide.weight[:5])
        narrow.bias.copy_(wide.bias[:5])
    value[:, 5:] = 0
    with live_norms(wide):
        torch.testing.assert_close(wide(value)[:, :5], narrow(value[:, :5]))
    assert (wide(value)[:, :5] - narrow(value[:, :5])).abs().max() > 0.1


def test_outputs_in_any_nesting_come_as_a_tuple() -> None:
    given = Outputs(_Deep())(torch.randn(2, 3, 8, 8))
    assert [tuple(value.shape) for value in given] == [(2, 16)]


def test_the_layers_that_give_the_outputs_are_found_or_the_last_one() -> None:
    inputs = (torch.randn(2, 4),)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert zoo_levels.last_layers(Subject(network, inputs, "whole")) == [network[2]]
    network.append(nn.Sigmoid())
    assert zoo_levels.last_layers(Subject(network, inputs, "whole")) == [network[2]]
    network = nn.Sequential(nn.Linear(4, 5), _Both())
    head = network[1]
    assert zoo_levels.last_layers(Subject(network, inputs, "whole")) == [head.one, head.other]


class _Both(nn.Module):
    """Two outputs, and a layer that runs between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.between, self.other = nn.Linear(5, 2), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(value), self.other(self.between(value))


def test_a_detector_is_cut_down_to_its_backbone_and_heads() -> None:
    detector = nn.Module()
    detector.backbone = nn.Conv2d(3, 4, 1)
    detector.rpn = nn.Module()
    detector.rpn.head = nn.Sequential(_First(), nn.Conv2d(4, 2, 1))
    detector.roi_heads = nn.Module()
    pool = nn.Module()
    pool.output_size = (7, 7)  # type: ignore[assignment]
    detector.roi_heads.box_roi_pool = pool
    detector.roi_heads.box_head = nn.Flatten()
    detector.roi_heads.box_predictor = nn.Linear(4 * 49, 6)
    outputs = Heads(detector)(torch.randn(2, 3, 16, 16))
    assert [tuple(value.shape) for value in outputs] == [(2, 2, 16, 16), (2, 6)]


class _First(nn.Module):
    """The first of a list of feature maps."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[0]
