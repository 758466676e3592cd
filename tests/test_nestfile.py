from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as read_safetensors
from safetensors.torch import load_file
from torch import nn

from nestedge.calibration import Calibration
from nestedge.errors import UsageError
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict, stored_tensors
from nestedge.nested import NestedModel, nest
from nestedge.nestfile import load
from tests.golden import make
from tests.networks import images, nested_perceptron, nested_resnet, vectors

_GOLDEN = Path(__file__).parent / "golden" / "format2.nest"
_GOLDEN_1 = _GOLDEN.with_name("format1.nest")
_GOLDEN_3 = _GOLDEN.with_name("format3.nest")
_GOLDEN_4 = _GOLDEN.with_name("format4.nest")
_GOLDEN_5 = _GOLDEN.with_name("format5.nest")


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    return nested_resnet()


@pytest.fixture(scope="module")
def saved(nested: NestedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net.nest"
    nested.save(path)
    return path


def _same(a: object, b: object) -> bool:
    """Whether two nested outputs are equal bit by bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_loaded_network_equals_the_saved_one_on_every_level(
    nested: NestedModel, saved: Path, training: bool
) -> None:
    original, loaded = copy.deepcopy(nested).train(training), load(saved).train(training)
    assert loaded.levels == original.levels
    inputs, _ = images(4)
    for level in original.levels:
        with original.at(level), loaded.at(level):
            assert _same(original(inputs), loaded(inputs))
    assert _same(original(inputs), loaded(inputs))
    # In training the statistics have moved, and by the same.
    assert _same(stored_tensors(original), stored_tensors(loaded))


def test_dropout_and_training_outputs_come_back(tmp_path: Path) -> None:
    nested = nested_perceptron().train()
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest").train()
    inputs, _ = vectors(64)
    for level in nested.levels:
        with nested.at(level), loaded.at(level):
            torch.manual_seed(0)
            expected = nested(inputs)
            torch.manual_seed(0)
            assert _same(expected, loaded(inputs))
            assert "activity" in expected


def test_saving_leaves_the_network_in_its_mode(tmp_path: Path) -> None:
    nested = nested_perceptron()
    for training in (True, False):
        nested.train(training).save(tmp_path / "net.nest")
        assert nested.training is training
    assert not load(tmp_path / "net.nest").training


@pytest.mark.parametrize("golden", [_GOLDEN_1, _GOLDEN], ids=["format 1", "format 2"])
def test_everything_that_travels_comes_back(golden: Path) -> None:
    made, loaded = make.network(), load(golden)
    assert loaded.card == made.card
    assert loaded.aliases == made.aliases == {"twin.weight": "head.weight"}
    assert _same(loaded.examples, made.examples)
    assert loaded.nesting == made.nesting
    assert loaded.elastic.program == made.elastic.program
    assert loaded.training_program == made.training_program


def _array_bytes(calibration: Calibration | None) -> dict[str, tuple[object, ...]]:
    assert calibration is not None
    return {n: (a.dtype, a.shape, a.tobytes()) for n, a in calibration.inputs.items()}


def test_calibration_data_comes_back() -> None:
    made, loaded = make.calibrated().calibration, load(_GOLDEN).calibration
    assert _array_bytes(loaded) == _array_bytes(made)
    assert made is not None
    assert loaded is not None
    assert loaded.sha256 == made.sha256
    assert loaded.cases == 2


def test_a_file_of_format_1_has_no_calibration_data_and_is_saved_as_format_5(
    tmp_path: Path,
) -> None:
    loaded = load(_GOLDEN_1)
    assert loaded.calibration is None
    loaded.save(tmp_path / "net.nest")
    with zipfile.ZipFile(tmp_path / "net.nest") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert (manifest["format"], manifest["calibration_cases"]) == (5, None)
    assert _same(stored_tensors(load(tmp_path / "net.nest")), stored_tensors(loaded))


def test_a_calibrated_network_is_the_same_bytes_when_it_is_saved_again(tmp_path: Path) -> None:
    load(_GOLDEN).save(tmp_path / "net.nest")
    load(tmp_path / "net.nest").save(tmp_path / "again.nest")
    assert (tmp_path / "net.nest").read_bytes() == (tmp_path / "again.nest").read_bytes()


def test_a_network_is_the_bytes_that_it_was_when_its_format_was_released(tmp_path: Path) -> None:
    load(_GOLDEN_5).save(tmp_path / "net.nest")
    assert _entries_but_version(tmp_path / "net.nest") == _entries_but_version(_GOLDEN_5)


def _entries_but_version(path: Path) -> dict[str, object]:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(entries["manifest.json"])
    return {**entries, "manifest.json": {**manifest, "nestedge": None}}


def test_finer_levels_than_widths_come_back() -> None:
    made, loaded = make.fine(), load(_GOLDEN_3)
    assert loaded.nesting == made.nesting
    assert {axis.kind for axis in loaded.nesting.axes.values()} == {
        *("width", "head_width", "kernel", "branches")
    }


def test_the_lines_of_the_users_code_come_back_without_its_folder() -> None:
    lines = {node.op: node.line for node in load(_GOLDEN_5).elastic.program.nodes}
    assert re.fullmatch(r"make\.py:\d+", lines["aten.conv2d.default"])
    assert {node.line for node in load(_GOLDEN_4).elastic.program.nodes} == {""}
    with zipfile.ZipFile(_GOLDEN_5) as archive:
        program = archive.read("program.json")
    assert b"F.relu" not in program
    assert str(Path(__file__).parent).encode() not in program


@pytest.mark.parametrize("golden", [_GOLDEN_4, _GOLDEN_5], ids=["format 4", "format 5"])
def test_some_outputs_own_tensors_and_consensus_levels_come_back(golden: Path) -> None:
    made, loaded = make.hierarchy(), load(golden)
    assert loaded.nesting == made.nesting
    assert loaded.levels == made.levels == ("core", "half", "far", "full", "average", "learned")
    assert loaded.card == made.card
    assert loaded.card.own == ("fine.*", "stem.weight")
    assert loaded.nesting.tensors["late.0.weight"].serves == (("outputs", 1), ("outputs", 2))
    assert loaded.own_tensors("far").keys() == {"stem.weight", *_norm("norm"), *_norm("late.1")}
    assert {"fine.weight", "fine.bias"} < loaded.own_tensors("half").keys()
    assert loaded.own_tensors("full") == {}
    assert all(p.requires_grad for p in loaded.own_tensors("learned").values())


def _norm(module: str) -> set[str]:
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{module}.{part}" for part in parts}


def test_a_fixed_input_of_the_calibration_data_is_saved_once(tmp_path: Path) -> None:
    nested = nest(_Shifted(), (torch.zeros(2, 4), torch.zeros(1, 4)), {})
    nested.calibrate_with((torch.ones(50, 4), torch.full((1, 4), 3.0)))
    nested.save(tmp_path / "net.nest")
    with zipfile.ZipFile(tmp_path / "net.nest") as archive:
        tensors = read_safetensors(archive.read("tensors.safetensors"))
    assert tensors["calibration/table"].shape == (1, 4)
    assert _array_bytes(load(tmp_path / "net.nest").calibration) == _array_bytes(nested.calibration)


def test_a_loaded_network_materializes_and_gives_state_dicts(
    nested: NestedModel, saved: Path
) -> None:
    loaded = load(saved)
    inputs, _ = images(2)
    with nested.at("small"):
        expected = nested(inputs)
    assert torch.allclose(materialize(loaded, "small").module()(inputs), expected)
    assert _same(state_dict(loaded, "small"), state_dict(nested, "small"))


def test_a_loaded_network_takes_levels_and_trains(saved: Path) -> None:
    loaded = load(saved)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded.add_level("tiny", Level(0.25, depth=(1, 1)))
    loaded.train()
    with loaded.at("tiny"):
        loaded(images(2)[0]).sum().backward()
    assert any(parameter.grad is not None for parameter in loaded.parameters())


def test_a_saved_network_without_levels_comes_back(tmp_path: Path) -> None:
    nest(nn.Linear(4, 2), torch.zeros(2, 4), {}).save(tmp_path / "net.nest")
    assert load(tmp_path / "net.nest").levels == ()


class _Shifted(nn.Module):
    """An input without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x) + table
        return y


class _Counting(nn.Module):
    """A parameter and a buffer of integers, and one that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.arange(4), requires_grad=False)
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("scratch", torch.ones(2, 3), persistent=False)
        self.linear = nn.Linear(4, 8)
        self.last = nn.Linear(8, 2, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.where(self.get_buffer("mask"), x, x * self.steps)
        y: torch.Tensor = self.last(self.linear(x).to(torch.bfloat16))
        return y


def test_tensors_of_every_dtype_come_back(tmp_path: Path) -> None:
    nested = nest(_Counting(), torch.zeros(2, 4), {"small": Level({"linear": 3})})
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert _same(stored_tensors(nested), stored_tensors(loaded))
    trained = {name: p.requires_grad for name, p in loaded.shared.named_parameters()}
    assert not trained["steps"]
    assert trained["last.weight"]


def test_the_same_network_is_the_same_bytes(
    nested: NestedModel, saved: Path, tmp_path: Path
) -> None:
    nested.save(tmp_path / "again.nest")
    load(saved).save(tmp_path / "loaded.nest")
    assert (tmp_path / "again.nest").read_bytes() == saved.read_bytes()
    assert (tmp_path / "loaded.nest").read_bytes() == saved.read_bytes()


def test_the_same_code_makes_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = "import sys; from tests.golden import make; make.calibrated().save(sys.argv[1])"
    # Another seed for the hashes of strings is another order of sets.
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "theirs.nest")],
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": "."},
    )
    make.calibrated().save(tmp_path / "ours.nest")
    assert (tmp_path / "ours.nest").read_bytes() == (tmp_path / "theirs.nest").read_bytes()


def test_nothing_in_the_file_is_compressed_dated_or_pickled(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        infos = archive.infolist()
    assert [i.filename for i in infos] == ["manifest.json", "program.json", "tensors.safetensors"]
    assert {i.compress_type for i in infos} == {zipfile.ZIP_STORED}
    assert {i.date_time for i in infos} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_an_interrupted_save_leaves_the_old_file(
    nested: NestedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "net.nest"
    path.write_bytes(b"old")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        nested.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_of_another_dtype_than_its_program_is_not_saved(tmp_path: Path) -> None:
    nested = nested_perceptron().float()
    expected = r"'shared/first.weight': expected float64 of shape \[16, 6\], found float32"
    with pytest.raises(UsageError, match=expected):
        nested.save(tmp_path / "net.nest")
    assert not list(tmp_path.iterdir())


class _Clamped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, limit: float) -> torch.Tensor:
        y: torch.Tensor = self.linear(x).clamp(max=limit)
        return y


def test_a_program_that_could_not_be_read_again_is_not_saved(tmp_path: Path) -> None:
    nested = nest(_Clamped(), (torch.zeros(2, 4), float("inf")), {})
    with pytest.raises(UsageError, match=r"^cannot save the network: .*not JSON compliant"):
        nested.save(tmp_path / "net.nest")


class _Filled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        return y.masked_fill(y > 1, float("nan")).masked_fill(y < -1, float("-inf"))


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    nested = nest(_Filled(), torch.zeros(2, 4), {})
    nested.save(tmp_path / "net.nest")
    x = 10 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    found, expected = load(tmp_path / "net.nest")(x), nested(x)
    assert expected.isnan().any()
    assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))


@pytest.mark.parametrize(
    "golden", [_GOLDEN_1, _GOLDEN, _GOLDEN_3, _GOLDEN_4, _GOLDEN_5], ids=["1", "2", "3", "4", "5"]
)
def test_a_golden_file_gives_the_recorded_outputs(golden: Path) -> None:
    expected = load_file(golden.with_suffix(".safetensors"))
    found = make.outputs(load(golden), *make.inputs()[: 2 if golden in (_GOLDEN_1, _GOLDEN) else 1])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_loading_needs_no_code_of_the_users_and_no_unpickling(tmp_path: Path) -> None:
    code = (
        "import sys, pickle, torch, nestedge\n"
        "def refuse(*args, **kwargs): raise SystemExit('forbidden call')\n"
        "pickle.loads = pickle.load = torch.load = torch.export.load = refuse\n"
        f"nested = nestedge.load({str(_GOLDEN)!r})\n"
        "with nested.at('small'): print(sorted(nested(torch.zeros(1, 3, 8, 8), "
        "{'place': torch.tensor([1])})))\n"
        "assert not any(name.startswith(('tests', 'benchmarks')) for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['logits', 'more']\n", done.stderr
