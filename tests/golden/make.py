"""Makes format5.nest and the outputs it is to give: run once when a format version is released.

A golden file is never made anew: files that users have must load for as long as nestedge does. A
new format version adds a file, of a network with what is new. format1.nest is that of `network`
without calibration data, format2.nest with it, as the nestedge of that version saved them;
format3.nest is that of `fine`, format4.nest and format5.nest are that of `hierarchy`.

    python -m tests.golden.make
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.consensus import add_consensus
from nestedge.levels import Level
from nestedge.nested import Card, NestedModel, nest
from nestedge.nestfile import save
from nestedge.preprocessing import Preprocessing

FOLDER = Path(__file__).parent


class Block(nn.Module):
    """A residual block that a level may leave out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A feature map of the same shape."""
        y: Tensor = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return x + y


class Network(nn.Module):
    """Something of everything: two inputs, a constant, blocks, tied weights, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.place = nn.Embedding(5, 16)
        self.head = nn.Linear(16, 4)
        self.twin = nn.Linear(16, 4, bias=False)
        self.twin.weight = self.head.weight

    def forward(self, image: Tensor, where: dict[str, Tensor]) -> dict[str, object]:
        """Logits and more for images of shape (batch, 3, 8, 8) and places of shape (batch,)."""
        x = self.blocks(F.hardtanh(self.bn(self.stem(image)), -1.0, 2.5))
        x = x.mean((2, 3)) + self.place(where["place"]) * torch.tensor(0.5)
        return {
            "logits": self.head(x),
            "more": {"energy": (x * x).mean(1), "pair": [self.twin(x), image.sum((1, 2, 3))]},
        }


def inputs() -> tuple[Tensor, dict[str, Tensor]]:
    """A batch of three."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, 8, 8, generator=generator)
    return image, {"place": torch.tensor([4, 0, 2])}


def network() -> NestedModel:
    """The network with three levels: narrow and shallow and sparse, narrow, and full."""
    model = Network()
    redraw(model, seed=0)
    mask = torch.rand(4, 16, generator=torch.Generator().manual_seed(2)) > 0.5
    card = Card(
        labels=("north", "east", "south", "west"),
        preprocessing=Preprocessing("image", scale=1 / 255, mean=(0.5,) * 3, std=(0.25,) * 3),
        divisor=4,
    )
    levels = {
        "small": Level(0.5, depth=(1,), masks={"head.weight": mask.numpy()}),
        "medium": Level(0.75),
        "full": Level(),
    }
    nested = nest(model, inputs(), levels, card=card)
    # Every level has statistics of its own: a set that were lost would show.
    for level in nested.levels:
        for name, tensor in nested.own_tensors(level).items():
            if name.endswith("running_mean"):
                tensor += 0.1 * (1 + nested.levels.index(level))
    return nested


def calibrated() -> NestedModel:
    """The network with two cases of calibration data."""
    nested = network()
    image, where = inputs()
    nested.calibrate_with((image[:2], {"place": where["place"][:2]}))
    return nested


class Fine(nn.Module):
    """What levels may have less of since format 3: kernels, places in groups, branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 5, padding=2)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.experts = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, 4) for images of shape (batch, 3, 8, 8)."""
        x = F.relu(self.grouped(F.relu(self.stem(x))))
        mixed = self.experts[0](x) + self.experts[1](x) + self.experts[2](x)
        logits: Tensor = self.head(mixed.mean((2, 3)))
        return logits


def fine() -> NestedModel:
    """The network of `Fine`, with a level of each choice and one of all of them."""
    model = Fine()
    redraw(model, seed=0)
    levels = {
        "all": Level({"*": 0.5}, kernel=3, head_width={"*": 2}, branches={"*": [0, 2]}),
        "kernel": Level(kernel={"stem*": 1}),
        "places": Level(head_width={"*": [0, 3]}),
        "branches": Level(branches=0.5),
    }
    return nest(model, inputs()[0], levels, card=Card(divisor=4))


class Hierarchy(nn.Module):
    """What levels may have since format 4: some of the outputs, heads of their own, consensus."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.coarse = nn.Linear(16, 2)
        self.late = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.fine = nn.Linear(8, 5)
        self.distance = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of 2 and of 5 classes and a distance for images of shape (batch, 3, 8, 8)."""
        early = F.relu(self.norm(self.stem(x))).mean((2, 3))
        late = self.late(early)
        found = {"coarse": self.coarse(early), "fine": self.fine(late)}
        return {**found, "distance": self.distance(late)}


def hierarchy() -> NestedModel:
    """The network of `Hierarchy`, with levels of some outputs and both kinds of consensus."""
    model = Hierarchy()
    redraw(model, seed=0)
    levels = {
        "core": Level(0.5, outputs=("coarse",)),
        "half": Level(0.5, outputs=("coarse", "fine")),
        "far": Level(0.5, outputs=("distance",)),
        "full": Level(),
    }
    nested = nest(model, inputs()[0], levels, card=Card(divisor=4, own=("fine.*", "stem.weight")))
    add_consensus(nested, "average", ("half", "full"), output="fine", of="probabilities")
    add_consensus(nested, "learned", ("full", "half"), output="fine", learned=True)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in (nested.own_tensors("half")["fine.weight"], *_layer(nested)):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return nested


def _layer(nested: NestedModel) -> list[Tensor]:
    own = nested.own_tensors("learned")
    return [own["weight"], own["bias"]]


def outputs(nested: NestedModel, *given: object) -> dict[str, Tensor]:
    """What every level gives in evaluation mode, and the full network in training mode."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for level in nested.eval().levels:
            with nested.at(level):
                found |= _flat(nested(*given), level)
        found |= _flat(nested.train()(*given), "train")
    return found


def _flat(output: Any, level: str) -> dict[str, Tensor]:
    if isinstance(output, Tensor):
        return {f"{level}/logits": output}
    if "more" not in output:
        return {f"{level}/{name}": tensor for name, tensor in output.items()}
    more = output["more"]
    tensors = {"logits": output["logits"], "energy": more["energy"]}
    tensors |= {f"pair.{i}": tensor for i, tensor in enumerate(more["pair"])}
    return {f"{level}/{name}": tensor for name, tensor in tensors.items()}


if __name__ == "__main__":
    made = hierarchy()
    save(made, FOLDER / "format5.nest")
    save_file(outputs(made, inputs()[0]), FOLDER / "format5.safetensors")
