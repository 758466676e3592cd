"""Whether an imported level is what its reference computes, before and after it is materialised."""

from __future__ import annotations

from pathlib import Path

import torch

from nestedge.materialization import materialize
from nestedge.model import NestedModel
from nestedge.nestfile import load


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert torch.isfinite(found).all()
    assert expected.abs().max() > 1e-3
    return float((found - expected).abs().max() / expected.abs().max())


def at_level(nested: NestedModel, level: str, x: torch.Tensor) -> torch.Tensor:
    with nested.at(level), torch.no_grad():
        y: torch.Tensor = nested(x)
    return y


def assert_exact(nested: NestedModel, level: str, x: torch.Tensor, expected: torch.Tensor) -> None:
    """The level, the level materialised, and the reference give the same for some inputs."""
    assert relative_error(at_level(nested, level, x), expected) <= 1e-6
    program = materialize(nested, level)
    assert relative_error(program.module()(x).detach(), expected) <= 1e-6


def saved_and_loaded(nested: NestedModel, folder: Path) -> NestedModel:
    nested.save(folder / "net.nest")
    return load(folder / "net.nest")
