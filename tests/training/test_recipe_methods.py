from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.networks.resnet import CifarResNet
from nestedge.cost import count_parameters
from nestedge.errors import FormatError, UsageError
from nestedge.inspection import inspect
from nestedge.materialization import materialize
from nestedge.nestfile import load
from nestedge.training import Checkpoints, Progress, Sparsity, ternary_start, write_start
from nestedge.training.recipes import Trained, recipe_from, run_recipe
from tests.training.test_recipes import tables


class _Grey(nn.Module):
    """A residual network for grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = CifarResNet((2, 2), (8, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 10) for images of shape (batch, 1, 8, 8)."""
        found: torch.Tensor = self.net(x.expand(-1, 3, -1, -1))
        return found


CHOICES = {"width": {"net.layer*": [0.5, 1.0]}, "depth": {"net.layer*": [1, 2]}}
SHRUNK: dict[str, Any] = {
    "model": {"factory": _Grey},
    "levels": {"small": 0.5, "full": 1.0},
    "card": {"batch_norm": "statistics"},
    "training": {"epochs": 3},
}
SPARSE: dict[str, Any] = {"model": {"factory": _Grey}, "levels": {"small": None, "full": None}}

METHODS: dict[str, dict[str, Any]] = {
    "connections": {
        "model": {"factory": _Grey},
        "levels": {"small": None},
        "method": {"name": "connections", "densities": {"half": 0.5, "third": 0.3}},
    },
    "random connections": {
        "model": {"factory": _Grey},
        "levels": {"small": None},
        "method": {
            "name": "connections",
            "densities": {"half": 0.5},
            "dense": 0,
            "random": True,
            "scope": "layer",
        },
    },
    "sss": {
        **SPARSE,
        "method": {
            "name": "sss",
            "gamma": 0.8,
            "neurons": ["*"],
            "thresholds": {"lossless": 0.0, "smaller": 0.5},
        },
    },
    "delayed": {**SHRUNK, "method": {"name": "shrinking", "ramp": 1, "warmup": 2, **CHOICES}},
    "early": {**SHRUNK, "method": {"name": "shrinking", "plan": "early", "nets": 3, **CHOICES}},
    "progressive": {
        **SHRUNK,
        "method": {
            "name": "shrinking",
            "plan": "progressive",
            "depths": [1, 1],
            "widths": [0, 1],
            **CHOICES,
        },
    },
    "ssgd": {
        **SPARSE,
        "method": {
            "name": "ssgd",
            "densities": {"tenth": 0.1},
            "epsilon": 1e-3,
            "reweighting": "l1",
            "limit": 50,
        },
    },
    "asni": {
        **SPARSE,
        "method": {"name": "asni", "magnitude": 90, "scale": 0.5},
        "training": {"epochs": 4},
    },
}


def _run(path: Path, changes: dict[str, Any], **options: Any) -> Trained:
    asked = tables(**changes)
    asked["levels"] = {name: level for name, level in asked["levels"].items() if level is not None}
    return run_recipe(recipe_from(asked, folder=path.parent), path, **options)


class _EndOfProcessError(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("name", METHODS)
def test_every_method_ends_with_levels_that_materialise_after_an_interruption_too(
    name: str, tmp_path: Path
) -> None:
    changes = METHODS[name]
    trained = _run(tmp_path / "whole.nest", changes)
    nested = load(tmp_path / "whole.nest")
    assert nested.levels == tuple(trained.accuracies) != ()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for level in nested.levels:
        with nested.at(level), torch.no_grad():
            torch.testing.assert_close(materialize(nested, level).module()(x), nested(x))

    def stop(report: Progress) -> None:
        if (report.epoch, report.step) == (2, 3):
            raise _EndOfProcessError

    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2)
    with pytest.raises(_EndOfProcessError):
        _run(tmp_path / "again.nest", changes, checkpoints=checkpoints, progress=stop)
    _run(tmp_path / "again.nest", changes, checkpoints=checkpoints)
    assert (tmp_path / "again.nest").read_bytes() == (tmp_path / "whole.nest").read_bytes()


def test_connections_are_as_dense_as_was_asked(tmp_path: Path) -> None:
    trained = _run(tmp_path / "net.nest", METHODS["connections"])
    kept = {level: inspect(trained.nested).levels[level] for level in ("half", "third")}
    weights = Sparsity(copy.deepcopy(trained.nested)).weights
    total = sum(weight.numel() for weight in weights.values())
    for level, density in (("half", 0.5), ("third", 0.3)):
        codes = trained.nested.codes
        assert codes is not None
        used = trained.nested.nesting.patterns
        count = 0
        for name in weights:
            code = dict(codes.named_buffers())[name]
            live = [i for i, levels in enumerate(used[name]) if level in levels]
            count += int(torch.isin(code, torch.tensor(live, dtype=code.dtype)).sum())
        assert count / total == pytest.approx(density, abs=0.001)
    assert set(kept) == {"half", "third"}


def test_a_lossless_selection_gives_what_was_trained_and_is_smaller(tmp_path: Path) -> None:
    nested = _run(tmp_path / "net.nest", METHODS["sss"]).nested
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = nested(x)
        with nested.at("lossless"):
            torch.testing.assert_close(nested(x), whole, rtol=1e-5, atol=1e-5)
    sizes = [
        count_parameters(nested.plan(level).program) for level in (None, "lossless", "smaller")
    ]
    assert sizes[0] > sizes[1] >= sizes[2]


def test_a_sparse_level_is_what_was_trained_and_starts_another_training(tmp_path: Path) -> None:
    asked = {
        "levels": {"small": None, "full": None},
        "method": {"name": "asni", "magnitude": 80, "scale": 0.5, "level": "pruned"},
        "training": {"epochs": 4},
    }
    nested = _run(tmp_path / "first.nest", asked).nested
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), nested.at("pruned"):
        pruned = nested(x)
    assert torch.equal(pruned, nested(x))
    write_start(ternary_start(nested), tmp_path / "pattern.start")
    second = {**asked, "method": {"name": "asni", "start": "pattern.start"}}
    again = _run(tmp_path / "second.nest", second).nested
    zeros = [
        {name: (w == 0).clone() for name, w in Sparsity(copy.deepcopy(n)).weights.items()}
        for n in (nested, again)
    ]
    for name, dead in zeros[0].items():
        assert dead.any() or name.endswith("6.weight"), name
        assert torch.equal(dead, zeros[1][name]), name


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "no densities": ({"name": "connections"}, "method.densities: missing"),
    "density": (
        {"name": "connections", "densities": {"half": 1.5}},
        "level 'half': expected 0 < density <= 1, found 1.5",
    ),
    "all dense": (
        {"name": "connections", "densities": {"half": 0.5}, "dense": 2},
        "method.dense: expected fewer than the 2 epochs, found 2",
    ),
    "no gamma": ({"name": "sss"}, "method.gamma: missing"),
    "pattern": (
        {"name": "sss", "gamma": 0.1, "neurons": ["stem"]},
        "neurons: none that a factor can switch off fits 'stem'",
    ),
    "switchable": (
        {"name": "shrinking", "width": {"*": [0.5, 1.0]}},
        'expected card.batch_norm = "statistics" or "shared", found "switchable"',
    ),
    "plan": ({"name": "shrinking", "plan": "delay"}, "method.plan: expected"),
    "key": ({"name": "ssgd", "density": {}}, "method.density: unknown.*did you mean 'densities'"),
    "p": (
        {"name": "ssgd", "densities": {"a": 0.1}, "p": 1.0},
        'method.p: expected nothing, since only measure = "p-norm-like" has it',
    ),
    "no magnitude": ({"name": "asni", "scale": 1.0}, "method.magnitude: missing"),
    "start": (
        {"name": "asni", "start": "a.start", "scale": 1.0},
        "method.scale: expected nothing beside start",
    ),
    "no start": ({"name": "asni", "start": "a.start"}, "a.start: no such file"),
}


@pytest.mark.parametrize(("method", "message"), list(REFUSALS.values()), ids=list(REFUSALS))
def test_what_a_method_cannot_do_is_refused(
    method: dict[str, Any], message: str, tmp_path: Path
) -> None:
    asked = tables()
    asked["method"] = method
    with pytest.raises((FormatError, UsageError), match=message):
        run_recipe(recipe_from(asked, folder=tmp_path), tmp_path / "net.nest")
    assert not (tmp_path / "net.nest").exists()
