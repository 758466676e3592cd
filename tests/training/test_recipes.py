from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nestedge.errors import FormatError, NestedgeError, UsageError
from nestedge.levels import Level
from nestedge.materialization import state_dict
from nestedge.model import NestedModel
from nestedge.nestfile import load
from nestedge.training import Checkpoints, Progress, recalibrate
from nestedge.training.datasets import digits
from nestedge.training.recipes import (
    METHODS,
    Method,
    Recipe,
    Setup,
    Trained,
    read_recipe,
    recipe_from,
    run_recipe,
)
from tests.training.test_image_folders import as_folder, split_content

Tables = dict[str, dict[str, Any]]

TEXT = """
[model]
factory = "{module}:make"
[levels]
small = 0.5
full = 1.0
[data]
kind = "digits"
batch = 32
limit = 128
calibration = 16
augmentation = "crop-flip"
[method]
name = "joint"
[optimizer]
name = "SGD"
lr = 0.1
momentum = 0.9
[training]
epochs = 2
"""


def small_network(classes: int = 10, *, channels: int = 1) -> nn.Module:
    """One convolution, a batch norm, dropout, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


def two_classes() -> nn.Module:
    return small_network(2, channels=3)


def tables(**changes: dict[str, Any]) -> Tables:
    """A recipe of a few seconds, with some keys changed; None takes one out."""
    found: Tables = {
        "model": {"factory": small_network},
        "levels": {"small": 0.5, "full": 1.0},
        "data": {"kind": "digits", "batch": 32, "limit": 128, "calibration": 16},
        "method": {"name": "joint"},
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        "training": {"epochs": 2},
    }
    for name, keys in changes.items():
        merged = {**found.get(name, {}), **keys}
        found[name] = {key: value for key, value in merged.items() if value is not None}
    return found


def _recipe(**changes: dict[str, Any]) -> Recipe:
    return recipe_from(tables(**changes), folder=Path())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A recipe that has run, with dropout and augmentation."""
    path = tmp_path_factory.mktemp("recipe") / "net.nest"
    return path, run_recipe(_recipe(data={"augmentation": "crop-flip"}), path)


def test_a_recipe_ends_with_a_nest_that_knows_how_it_is_fed(saved: tuple[Path, Trained]) -> None:
    path, trained = saved
    nested = load(path)
    assert nested.levels == ("small", "full")
    assert nested.card.labels == digits().labels
    steps = nested.card.preprocessing
    assert steps is not None
    assert (steps.input, steps.colour) == ("input", "GRAY")
    assert abs(steps.mean[0] - 0.305) < 0.02
    assert nested.calibration is not None
    assert nested.calibration.cases == 16
    assert list(trained.accuracies) == ["small", "full"]
    assert [report.epoch for report in trained.reports] == [1, 2]
    assert trained.reports[-1].accuracies == trained.accuracies
    assert trained.reports[1].loss < trained.reports[0].loss
    assert not trained.nested.training


def test_the_same_recipe_is_the_same_bytes_and_another_seed_others(
    saved: tuple[Path, Trained], tmp_path: Path
) -> None:
    expected = saved[0].read_bytes()
    # What others have drawn before does not count.
    torch.rand(7)
    for seed in (0, 1):
        recipe = _recipe(data={"augmentation": "crop-flip"}, training={"seed": seed})
        run_recipe(recipe, tmp_path / "net.nest")
        assert ((tmp_path / "net.nest").read_bytes() == expected) == (seed == 0)


class _KilledError(Exception):
    pass


def _until(epoch: int, step: int) -> Callable[[Progress], None]:
    def progress(report: Progress) -> None:
        if (report.epoch, report.step) == (epoch, step):
            raise _KilledError

    return progress


@pytest.mark.parametrize("stop", [(1, 3), (2, 1), (2, 4)], ids=["first", "second", "last step"])
def test_a_recipe_that_was_stopped_goes_on_to_the_same_bytes(
    saved: tuple[Path, Trained], tmp_path: Path, stop: tuple[int, int]
) -> None:
    output, checkpoints = tmp_path / "net.nest", Checkpoints(tmp_path / "checkpoints", every=1)
    output.write_bytes(b"before")
    recipe = _recipe(data={"augmentation": "crop-flip"})
    with pytest.raises(_KilledError):
        run_recipe(recipe, output, checkpoints=checkpoints, progress=_until(*stop))
    assert output.read_bytes() == b"before"
    reports = list[Progress]()
    run_recipe(recipe, output, checkpoints=checkpoints, progress=reports.append)
    assert output.read_bytes() == saved[0].read_bytes()
    # Of eight steps and two evaluations those that were saved are not done again.
    assert len(reports) < 10
    run_recipe(recipe, output, checkpoints=checkpoints, progress=_until(1, 1))
    assert output.read_bytes() == saved[0].read_bytes()


def test_a_rounded_recipe_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    card, data = {"batch_norm": "statistics"}, {"augmentation": "crop-flip"}
    recipe = _recipe(card=card, data=data, quantization={"from_epoch": 1})
    run_recipe(recipe, tmp_path / "whole")
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=1)
    for stop, rounded in (((1, 3), []), ((2, 3), ["full", "small"])):
        with pytest.raises(_KilledError):
            run_recipe(recipe, tmp_path / "x", checkpoints=checkpoints, progress=_until(*stop))
        state = checkpoints.read()
        assert state is not None
        assert sorted(state["parts"]["quantization"]) == rounded
    trained = run_recipe(recipe, tmp_path / "x", checkpoints=checkpoints)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()
    assert trained.nested.operation is None
    earlier = _recipe(card=card, data=data, quantization={"from_epoch": 0})
    with pytest.raises(UsageError, match=r"recipe: quantization\.from_epoch was 1 and is 0"):
        run_recipe(earlier, tmp_path / "x", checkpoints=checkpoints)


@pytest.mark.parametrize("activations", [True, False], ids=["all", "weights"])
def test_a_recipe_measures_statistics_on_rounded_numbers(
    activations: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = list[Any]()

    def noted(nested: NestedModel, batches: Any, *, levels: list[str]) -> None:
        operations.append(nested.operation)
        assert not nested.training

    monkeypatch.setattr("nestedge.training.recipes.running.recalibrate", noted)
    changes: dict[str, Any] = {"card": {"batch_norm": "statistics"}, "training": {"epochs": 1}}
    trained = run_recipe(
        _recipe(quantization={"activations": activations}, **changes), tmp_path / "net.nest"
    )
    run_recipe(_recipe(**changes), tmp_path / "net.nest")
    rounding, plain = operations
    assert plain is None
    layers = rounding("small", trained.nested.plan("small")).layers
    assert len(layers) == (2 if activations else 0)


def test_a_checkpoint_of_another_recipe_is_refused_with_what_is_different(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=1)
    with pytest.raises(_KilledError):
        run_recipe(_recipe(), tmp_path / "x", checkpoints=checkpoints, progress=_until(1, 2))
    for changes, message in (
        ({"optimizer": {"lr": 0.05}}, r"recipe: optimizer\.lr was 0\.1 and is 0\.05; give another"),
        ({"data": {"limit": 96}}, r"recipe: data\.limit was 128 and is 96"),
    ):
        with pytest.raises(UsageError, match=message):
            run_recipe(_recipe(**changes), tmp_path / "x", checkpoints=checkpoints)
    # How the data is read changes nothing of what is trained.
    recipe = _recipe(data={"workers": 1})
    with pytest.raises(_KilledError):
        run_recipe(recipe, tmp_path / "x", checkpoints=checkpoints, progress=_until(1, 3))


def test_a_recipe_in_a_file_is_the_same_as_in_python(
    saved: tuple[Path, Trained], tmp_path: Path
) -> None:
    module = "network_of_a_recipe"
    code = "from tests.training.test_recipes import small_network as make\n"
    (tmp_path / f"{module}.py").write_text(code)
    (tmp_path / "recipe.toml").write_text(TEXT.format(module=module))
    heard = list[str]()
    recipe = read_recipe(tmp_path / "recipe.toml")
    run_recipe(recipe, tmp_path / "net.nest", announce=heard.append)
    assert (tmp_path / "net.nest").read_bytes() == saved[0].read_bytes()
    assert heard == [
        f"running the code of {module}:make",
        "128 images to train with, 450 to test, 10 classes; levels small, full",
    ]


def test_training_goes_on_from_a_nest_with_a_further_level(
    saved: tuple[Path, Trained], tmp_path: Path
) -> None:
    path, before = saved
    recipe = _recipe(
        model={"factory": None, "nest": str(path)},
        levels={"small": None, "full": None, "tiny": 0.25},
        card={"divisor": 4},
        data={"calibration": 0, "limit": 64},
        training={"epochs": 1},
    )
    trained = run_recipe(recipe, tmp_path / "net.nest").nested
    assert trained.levels == ("small", "full", "tiny")
    assert trained.card.preprocessing == before.nested.card.preprocessing
    assert trained.calibration is not None
    assert len(state_dict(trained, "tiny")["0.weight"]) == 4
    assert not torch.equal(
        trained.state_dict()["shared.0.weight"], before.nested.state_dict()["shared.0.weight"]
    )


def test_weights_of_a_checkpoint_are_begun_with(tmp_path: Path) -> None:
    model = small_network()
    nn.init.constant_(model.get_parameter("0.weight"), 0.25)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    recipe = recipe_from(
        tables(model={"weights": "w.safetensors"}, optimizer={"lr": 1e-9}, training={"epochs": 1}),
        folder=tmp_path,
    )
    found = run_recipe(recipe, tmp_path / "net.nest").nested.state_dict()["shared.0.weight"]
    assert torch.allclose(found, torch.tensor(0.25), atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "measured"),
    [("switchable", []), ("statistics", ["small"]), ("shared", ["small", "full"])],
)
def test_levels_that_share_batch_norms_are_measured_at_the_end(
    policy: str, measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()

    def noted(nested: NestedModel, batches: Any, *, levels: list[str]) -> None:
        asked.extend(levels)
        recalibrate(nested, batches, levels=levels)

    monkeypatch.setattr("nestedge.training.recipes.running.recalibrate", noted)
    recipe = _recipe(card={"batch_norm": policy}, training={"epochs": 1})
    run_recipe(recipe, tmp_path / "net.nest")
    assert asked == measured


def test_a_method_adds_its_state_its_optimizer_and_levels_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rows of other methods need."""
    seen: dict[str, Any] = {"epochs": []}

    class State:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    def prepare(setup: Setup) -> Method:
        assert (setup.epochs, setup.steps, setup.seed) == (2, 4, 0)
        assert setup.rate(0.0) == pytest.approx(0.1)
        only = setup.optimizer([setup.nested.shared.get_parameter("0.weight")])
        return Method(
            lambda nested, x, y, _: iter([setup.loss(nested(x), y)]),
            only,
            after_epoch=seen["epochs"].append,
            state={"state": State()},
            finish=lambda nested: nested.add_level("found", 0.5),
        )

    monkeypatch.setitem(METHODS, "own", lambda keys: prepare)
    recipe = _recipe(method={"name": "own"}, levels={"small": None, "full": None})
    trained = run_recipe(recipe, tmp_path / "net.nest", checkpoints=Checkpoints(tmp_path / "c"))
    assert seen["epochs"] == [0, 1]
    assert list(trained.accuracies) == ["found"]
    assert list(trained.reports[0].accuracies) == ["network"]
    own = trained.nested.own_tensors("found")
    # Its statistics are those of its own channels, not the full network's.
    shared = trained.nested.state_dict()["shared.1.running_mean"]
    assert not torch.equal(own["1.running_mean"], shared[: len(own["1.running_mean"])])


def test_sandwich_takes_the_largest_and_the_smallest_by_their_parameters(tmp_path: Path) -> None:
    levels = {"full": 1.0, "small": None, "narrow": 0.5}
    recipe = _recipe(method={"name": "sandwich"}, levels=levels, training={"epochs": 1})
    assert list(run_recipe(recipe, tmp_path / "net.nest").accuracies) == ["full", "narrow"]
    wrong = _recipe(method={"name": "sandwich", "between": ["full"]}, levels=levels)
    with pytest.raises(UsageError, match="expected the largest, the smallest and others between"):
        run_recipe(wrong, tmp_path / "net.nest")


def test_levels_are_whatever_a_level_may_be() -> None:
    asked = {
        "a": 0.5,
        "b": {"width": {"*": 0.5, "0": 8, "1.*": [0, 2]}, "kernel": 3, "depth": [1, 2]},
        "c": {"head_width": 4, "kernel": {"0.*": 5}, "depth": 0.5, "branches": {"x": 1}},
        "d": Level(0.25),
    }
    assert _recipe(levels={"small": None, "full": None, **asked}).levels == {
        "a": Level(0.5),
        "b": Level({"*": 0.5, "0": 8, "1.*": [0, 2]}, kernel=3, depth=[1, 2]),
        "c": Level(head_width=4, kernel={"0.*": 5}, depth=0.5, branches={"x": 1}),
        "d": Level(0.25),
    }


WRONG: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "an unknown table": ({"optimiser": {}}, "recipe: optimiser: unknown; .* mean 'optimizer'"),
    "an unknown key": ({"data": {"bach": 1}}, r"data\.bach: unknown; .* mean 'batch'"),
    "a key of another kind": ({"data": {"size": 8}}, r"data\.size: unknown; expected kind, batch"),
    "a wrong type": ({"data": {"batch": "64"}}, r"data\.batch: expected an integer .* \"64\""),
    "no batch": ({"data": {"batch": None}}, r"data\.batch: missing"),
    "an unknown kind": ({"data": {"kind": "mnist"}}, r"data\.kind: expected .*, found \"mnist\""),
    "a mean alone": ({"data": {"mean": [0.5]}}, "data: expected both 'mean' and 'std'"),
    "a share above 1": ({"data": {"fraction": 1.5}}, r"data\.fraction: expected a share above 0"),
    "no factory": ({"model": {"factory": None}}, "model: expected either 'factory' or 'nest'"),
    "two models": ({"model": {"nest": "x"}}, "model: expected either 'factory' or 'nest'"),
    "a level of one channel": ({"levels": {"full": 1}}, r"levels\.full: expected a share as 0\.5"),
    "a level's key": ({"levels": {"x": {"widht": 1}}}, r"levels\.x\.widht: .* mean 'width'"),
    "no method": ({"method": {"name": None}}, r"method\.name: missing"),
    "an unknown method": ({"method": {"name": "jiont"}}, "no method 'jiont'; .* mean 'joint'"),
    "a method's key": ({"method": {"level": []}}, r"method\.level: unknown; .* mean 'levels'"),
    "an optimizer": ({"optimizer": {"name": "Adma"}}, "no optimizer 'Adma'; .* did you mean 'Ada"),
    "its argument": ({"optimizer": {"momentun": 0.9}}, r"momentun: unknown; .* mean 'momentum'"),
    "its value": ({"optimizer": {"momentum": -1}}, r"optimizer: torch\.optim\.SGD: .*momentum"),
    "its rate": ({"optimizer": {"lr": 0}}, r"optimizer\.lr: expected a learning rate above 0"),
    "a schedule": ({"schedule": {"name": "cosin"}}, r"schedule\.name: expected .* found \"cosin\""),
    "its key": ({"schedule": {"floor": 0.1}}, r"schedule\.floor: unknown; expected name, warmup"),
    "its steps": ({"schedule": {"name": "step"}}, r"schedule\.milestones: expected rising epochs"),
    "no epoch": ({"training": {"epochs": 0}}, r"training\.epochs: expected an integer of at least"),
    "sync batch norm": (
        {"training": {"sync_batch_norm": 1}},
        r"training\.sync_batch_norm: expected",
    ),
    "precision": ({"training": {"precision": "int8"}}, r"training\.precision: expected \"float32"),
    "a key of rounding": (
        {"quantization": {"bits": 8}},
        r"quantization\.bits: unknown; expected f",
    ),
    "rounding of a method": (
        {"quantization": {}, "method": {"name": "sss", "gamma": 1.0}},
        "quantization: expected one of the methods joint, sandwich, connections.*found 'sss'",
    ),
    "rounding too late": (
        {"quantization": {"from_epoch": 2}},
        r"quantization\.from_epoch: expected an epoch before the end of the 2.*found 2",
    ),
    "a number for true": (
        {"quantization": {"activations": 1}},
        r"quantization\.activations: expected true or false",
    ),
    "an object": ({"training": {"seed": {1}}}, r"training\.seed: expected a text, a number"),
    "true for 1": ({"training": {"epochs": True}}, r"training\.epochs: expected an integer"),
}


@pytest.mark.parametrize(("changes", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_wrong_recipe_is_refused_when_it_is_read(
    changes: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        _recipe(**changes)


UNFIT: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "a level": ({"method": {"levels": ["smal"]}}, r"method\.levels: no level 'smal'; .*'small'"),
    "no level": ({"levels": {"small": None, "full": None}}, "expected at least one level"),
    "one level": (
        {"method": {"name": "sandwich"}, "levels": {"small": None}},
        "method: expected two levels or more",
    ),
    "classes": ({"model": {"factory": lambda: small_network(5)}}, r"shape \[1, 10\].*\[1, 5\]"),
    "labels": ({"card": {"labels": ["a"]}}, r"card\.labels: expected 10, .* found 1"),
    "input": ({"model": {"input": [1, 3, 8, 8]}}, r"model\.input: expected \[1, 1, 8, 8\], which"),
    "channels": ({"data": {"mean": [0.1, 0.2], "std": [1, 1]}}, "mean must have 1 entries"),
    "batch": ({"data": {"batch": 129}}, r"data\.batch: expected at most 128"),
    "folder": ({"data": {"kind": "folder", "limit": None}}, r"data\.root: missing"),
    "root": ({"data": {"kind": "folder", "root": "/none"}}, r"/none: no such folder or \.tar"),
    "nest": ({"model": {"factory": None, "nest": "none.nest"}}, r"none\.nest: no such file"),
    "weights": ({"model": {"weights": "none.pt"}}, r"none\.pt: no such file"),
    "function": ({"model": {"factory": "math:none"}}, "'math' has no function 'none'"),
    "no network": ({"model": {"factory": dict}}, "expected a torch.nn.Module, found dict"),
}


@pytest.mark.parametrize(("changes", "message"), list(UNFIT.values()), ids=list(UNFIT))
def test_what_does_not_fit_is_refused_before_training_and_nothing_is_replaced(
    changes: dict[str, dict[str, Any]], message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.nest").write_bytes(b"before")
    with pytest.raises(NestedgeError, match=message):
        run_recipe(_recipe(**changes), tmp_path / "net.nest", progress=_until(1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["net.nest"]
    assert (tmp_path / "net.nest").read_bytes() == b"before"


def test_an_output_in_no_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"net\.nest: there is no folder .*none"):
        run_recipe(_recipe(data={"root": None}), tmp_path / "none" / "net.nest")


def test_a_nest_of_other_classes_is_refused_unless_they_are_said_to_be_the_same(
    saved: tuple[Path, Trained], tmp_path: Path
) -> None:
    """The digits' network has ten classes of one channel; the folder has two of three."""
    folder = as_folder(split_content(), tmp_path / "images")
    changes: dict[str, dict[str, Any]] = {
        "model": {"factory": None, "nest": str(saved[0])},
        "levels": {"small": None, "full": None},
        "data": {"kind": "folder", "root": str(folder), "batch": 4, "limit": None},
    }
    with pytest.raises(UsageError, match=r"model\.nest: takes images of 1 channels"):
        run_recipe(_recipe(**changes), tmp_path / "net.nest")
    grey = {**changes["data"], "colour": "GRAY", "size": 8}
    with pytest.raises(UsageError, match=r"model\.nest: is for the classes .*card\.labels"):
        run_recipe(_recipe(**{**changes, "data": grey}), tmp_path / "net.nest")


def test_a_folder_of_images_is_trained_on_and_its_broken_images_are_named(tmp_path: Path) -> None:
    content = {**split_content(), "train/cat/00.png": b"text"}
    as_folder(content, tmp_path / "images")
    data = {"kind": "folder", "root": "images", "batch": 5, "limit": None, "skip_broken": True}
    recipe = recipe_from(tables(model={"factory": two_classes}, data=data), folder=tmp_path)
    heard = list[str]()
    trained = run_recipe(recipe, tmp_path / "net.nest", announce=heard.append)
    assert trained.skipped == ("train/cat/00.png",)
    assert heard[0] == "left out 1 broken images: train/cat/00.png"
    assert trained.nested.card.labels == ("cat", "dog")
    assert load(tmp_path / "net.nest").card.preprocessing == trained.nested.card.preprocessing


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    with pytest.raises(UsageError, match=r"r\.toml: no such file"):
        read_recipe(path)
    path.write_text("[model")
    with pytest.raises(FormatError, match=r"r\.toml: not TOML: Expected '\]'"):
        read_recipe(path)
    path.write_text(TEXT.format(module="m") + "\nseed = 2020-01-01\n")
    with pytest.raises(FormatError, match=r"r\.toml: training\.seed: expected a text, a number"):
        read_recipe(path)


def test_weight_decay_can_be_of_weights_alone() -> None:
    """Of weights that have no gradient, decay is all that moves them."""
    for decay, moved in (("weights", False), ("all", True)):
        keys = {"weight_decay": 0.1, "decay": decay, "momentum": None}
        model = small_network()
        optimizer = _recipe(optimizer=keys).optimizer.make(model.parameters())
        before = copy.deepcopy(model.state_dict())
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        after = model.state_dict()
        assert not torch.equal(after["0.weight"], before["0.weight"])
        assert torch.equal(after["1.weight"], before["1.weight"]) != moved


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"warmup": 2}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"name": "step", "milestones": [1, 3]}, [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"name": "step", "milestones": [3], "factor": 0.5}, [1, 1, 1, 1, 1, 1, 0.5, 0.5]),
        ({"name": "cosine"}, [1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]),
        (
            {"name": "cosine", "warmup": 2, "floor": 0.5},
            [0.25, 0.5, 0.75, 1, 1, 0.9268, 0.75, 0.5732],
        ),
    ],
    ids=["constant", "warm-up", "steps", "factor", "cosine", "all"],
)
def test_the_learning_rate_follows_its_schedule(
    keys: dict[str, Any], expected: list[float]
) -> None:
    """Of four epochs of two steps."""
    schedule = _recipe(schedule=keys).schedule
    rate = schedule.rate(2.0, epochs=4, steps=2)
    found = [rate(step / 8) / 2 for step in range(8)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_every_step_of_training_has_the_rate_of_its_schedule(tmp_path: Path) -> None:
    rates = list[float]()
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, closure: None = None) -> None:
        rates.append(self.param_groups[0]["lr"])
        original(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        run_recipe(_recipe(schedule={"name": "cosine"}), tmp_path / "net.nest")
    assert rates == pytest.approx(
        [0.1, 0.09619, 0.08536, 0.06913, 0.05, 0.03087, 0.01464, 0.00381], abs=1e-5
    )


def test_the_documentations_recipe_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"```(toml|python)\n(.*?)```", text, flags=re.DOTALL)
    recipe, *_ = [code for kind, code in blocks if kind == "toml"]
    network, rest = [code for kind, code in blocks if kind == "python"]
    (tmp_path / "recipe.toml").write_text(recipe)
    (tmp_path / "digits_network.py").write_text(network)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(rest, "docs/training.md", "exec"), names)
    accuracies = names["trained"].accuracies
    assert list(accuracies) == ["small", "medium", "full"]
    assert min(accuracies.values()) > 80
    assert (tmp_path / "net.nest").is_file()
