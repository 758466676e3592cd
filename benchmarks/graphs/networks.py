"""Random networks: the module that a description says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.graphs.descriptions import PIECES, Description, Junction, Step, Way
from benchmarks.graphs.parts import Part, Room
from benchmarks.networks.redraw import redraw
from benchmarks.zoo.networks import Subject
from benchmarks.zoo.scaling import settle

MOST_CHANNELS = 48
MOST_POSITIONS = 300
BATCH = 3
LARGE = 1e4
"""No weight of a layer whose inputs and outputs are of order 1 is larger."""


class Meeting(nn.Module):
    """Two branches that meet."""

    def __init__(self, way: Way, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.way, self.one, self.other = way, one, other

    def forward(self, x: Tensor) -> Tensor:
        """Their sum, product or concatenation."""
        one, other = self.one(x), self.other(x)
        if self.way == "concat":
            return torch.cat([one, other], 1)
        product: Tensor = one + other if self.way == "sum" else one * other.sigmoid()
        return product


class Residual(nn.Module):
    """A value and a branch added to it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        found: Tensor = x + self.body(x)
        return found


class Dense(Residual):
    """A value and what is made of it, side by side."""

    def forward(self, x: Tensor) -> Tensor:
        """The concatenation."""
        return torch.cat([x, self.body(x)], 1)


class Network(nn.Module):
    """A stem, steps and a head."""

    def __init__(self, stem: nn.Module, steps: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.steps, self.head = stem, steps, head

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Whatever the head gives."""
        found: Tensor | dict[str, Tensor] = self.head(self.steps(self.stem(x)))
        return found


class _Builder:
    """Makes modules one after another, each for what the last one gives."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = module.double().eval()(x)
        return found

    def room(self, x: Tensor, number: int) -> Room:
        return Room(
            x.shape[1] // self.scale, self.scale, tuple(x.shape[2:]), np.random.default_rng(number)
        )

    def chain(self, steps: Sequence[Step | Junction], x: Tensor) -> tuple[nn.Sequential, Tensor]:
        modules: list[nn.Module] = []
        for step in steps:
            made = (
                PIECES[step.piece](self.room(x, step.number))
                if isinstance(step, Step)
                else self.junction(step, x)
            )
            if made is None:
                continue
            y = self.run(made, x)
            # By this rule a network of one unit a channel is made of the same pieces.
            units, positions = y.shape[1] // self.scale, y[0, 0].numel()
            if units * 2 > MOST_CHANNELS or positions > MOST_POSITIONS or min(y.shape[2:]) < 2:
                continue
            modules.append(made)
            x = y
        return nn.Sequential(*modules), x

    def junction(self, junction: Junction, x: Tensor) -> nn.Module:
        first, *others = junction.branches
        room = self.room(x, junction.number)
        if junction.way == "stage":
            blocks = [
                Residual(self.like(first, x, x))
                for _ in range(len(others) + int(room.rng.integers(1, 3)))
            ]
            return nn.Sequential(*blocks)
        if junction.way == "dense stage":
            modules: list[nn.Module] = []
            for _ in range(2):
                modules.append(Dense(room.conv(2, 3, padding=1)))
                room = room.of(room.units + 2)
            return nn.Sequential(*modules)
        one, value = self.chain(first, x)
        rest = [step for branch in others for step in branch]
        wanted = value
        if junction.way == "concat":
            wanted = value[:, : self.scale * int(room.rng.integers(1, 4))]
        return Meeting(junction.way, one, self.like(rest, x, wanted))

    def like(self, steps: Sequence[Step], x: Tensor, wanted: Tensor) -> nn.Module:
        """A chain that gives the shape of another value."""
        body, y = self.chain(steps, x)
        sides = list(wanted.shape[2:])
        fitting: list[nn.Module] = [body]
        if list(y.shape[2:]) != sides:
            mode = "nearest"
            fitting.append(Part(lambda _, v: nn.functional.interpolate(v, size=sides, mode=mode)))
        units = wanted.shape[1] // self.scale
        fitting.append(self.room(y, 0).conv(units, 1))
        return nn.Sequential(*fitting)


def images(description: Description) -> Tensor:
    """A batch of inputs."""
    generator = torch.Generator().manual_seed(description.seed)
    shape = (BATCH, 3, *[description.side] * description.dims)
    return torch.randn(shape, generator=generator).double()


def build(description: Description, *, scale: int | None = None) -> Network:
    """The network that a description says, in double precision, with weights drawn.

    Args:
        description: what it is made of.
        scale: channels of one unit, where they are not the description's own.
    """
    if scale is not None:
        description = replace(description, scale=scale)
    scale, x = description.scale, images(description)
    builder = _Builder(scale)
    rng = np.random.default_rng(description.seed)
    room = Room(1, 1, tuple(x.shape[2:]), rng)
    stem = room.of(3).conv(description.units * scale, 3, padding=1)
    # torch's own generator decides what a piece gives while it is built, but no shape.
    torch.manual_seed(description.seed)
    steps, y = builder.chain(description.steps, builder.run(stem, x))
    network = Network(stem, steps, _head(description.head, y)).double().eval()
    redraw(network, description.seed)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_().add_(0.5)
    drawn = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settle(Subject(network, (x,), "whole"), seed=description.seed)
    if any(float(parameter.detach().abs().max()) > LARGE for parameter in network.parameters()):
        # What does not vary but by rounding, as the mean of an instance norm, cannot be scaled.
        network.load_state_dict(drawn)
    return network


def _head(kind: str, x: Tensor) -> nn.Module:
    channels, spatial = x.shape[1], tuple(range(2, x.dim()))
    pooled = nn.Linear(channels, 5)
    if kind == "map":
        return Room(channels, 1, tuple(x.shape[2:]), np.random.default_rng(0)).conv(4)
    if kind == "flat":
        return Part(lambda s, v: s.k(v.flatten(1)), k=nn.Linear(x[0].numel(), 5))
    if kind == "pooled":
        return Part(lambda s, v: s.k(v.mean(spatial)), k=pooled)
    return Part(
        lambda s, v: {"logits": s.k(v.mean(spatial)), "map": s.map(v)},
        k=pooled,
        map=(Room(channels, 1, tuple(x.shape[2:]), np.random.default_rng(0)).conv(3)),
    )
