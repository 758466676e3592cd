"""One network with two inputs and a nested result, from nest() to the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn

import nestedge
from nestedge.cli import main
from nestedge.nested import NestedModel
from nestedge.training import joint_objective, train
from tests.builds import build_here


class TwoEyes(nn.Module):
    """An image and a vector in; logits, and a dict of an embedding and its norm, out."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.vector = nn.Linear(5, 16)
        self.joint = nn.Linear(32, 24)
        self.head = nn.Linear(24, 4)
        self.embed = nn.Linear(24, 6)

    def forward(
        self, image: torch.Tensor, extra: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
        seen = self.image(image).mean((2, 3))
        heard = F.relu(self.vector(extra["vector"]))
        both = F.relu(self.joint(torch.cat([seen, heard], dim=1)))
        embedded = self.embed(both)
        return {
            "logits": self.head(both),
            "embedding": {"value": embedded, "norm": embedded.norm(dim=1)},
        }


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[NestedModel, Path]:
    """The network trained, saved, loaded and built."""
    folder = tmp_path_factory.mktemp("road")
    torch.manual_seed(0)
    image, vector = torch.randn(8, 3, 12, 12), torch.randn(8, 5)
    target = torch.randint(4, (8,))
    nested = nestedge.nest(
        TwoEyes(), {"image": image, "extra": {"vector": vector}}, {"small": 0.5, "full": 1.0}
    )

    def loss(result: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(result["logits"], wanted)

    train(
        nested,
        [({"image": image, "extra": {"vector": vector}}, target)] * 3,
        epochs=2,
        objective=joint_objective(nested.levels, loss),
        optimizer=torch.optim.SGD(nested.parameters(), lr=0.1),
    )
    nested.save(folder / "two.nest")
    build_here(nestedge.load(folder / "two.nest"), folder / "dist", targets=("onnx", "tflite"))
    return nested.eval(), folder


def test_every_artifact_is_its_level(road: tuple[NestedModel, Path]) -> None:
    _, folder = road
    result = CliRunner().invoke(main, ["verify", str(folder / "dist"), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["verifications"]
    assert [cell["cell"] for cell in found] == [
        f"{level}/{runtime}-fp32" for level in ("full", "small") for runtime in ("onnx", "tflite")
    ]
    assert all(cell["max_error"] <= 1e-5 for cell in found)


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_a_shipped_level_runs_on_named_inputs(
    road: tuple[NestedModel, Path], runtime: str, tmp_path: Path
) -> None:
    nested, folder = road
    rng = np.random.default_rng(1)
    image = rng.standard_normal((1, 3, 12, 12)).astype(np.float32)
    vector = rng.standard_normal((1, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", image=image, extra_vector=vector)
    cell, output = folder / "dist" / "small" / f"{runtime}-fp32", tmp_path / "y.npz"
    arguments = ["run", str(cell), str(tmp_path / "x.npz"), "-o", str(output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    found = np.load(output)
    assert set(found) == {"logits", "embedding_value", "embedding_norm"}
    with nested.at("small"), torch.no_grad():
        y = nested(torch.from_numpy(image), extra={"vector": torch.from_numpy(vector)})
    np.testing.assert_allclose(found["logits"], y["logits"], atol=1e-5)
    np.testing.assert_allclose(found["embedding_value"], y["embedding"]["value"], atol=1e-5)
    np.testing.assert_allclose(found["embedding_norm"], y["embedding"]["norm"], atol=1e-5)


def test_materialised_it_takes_and_gives_the_same_structure(
    road: tuple[NestedModel, Path],
) -> None:
    nested, _ = road
    image, vector = torch.randn(3, 3, 12, 12), torch.randn(3, 5)
    module = nestedge.materialize(nested, "small").module()
    found = module(image, {"vector": vector})
    with nested.at("small"), torch.no_grad():
        expected = nested(image, {"vector": vector})
    assert torch.equal(found["logits"], expected["logits"])
    assert torch.equal(found["embedding"]["norm"], expected["embedding"]["norm"])
