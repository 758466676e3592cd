from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.redraw import redraw
from nestedge.errors import UsageError
from nestedge.importing import from_matformer
from nestedge.inspection import inspect
from tests.importing.exactness import assert_exact, saved_and_loaded

WIDTH, HIDDEN = 8, 16
X = torch.randn(2, 5, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MLP = Callable[[int], nn.Module]


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))
        return y


class Gated(nn.Module):
    """Three linear layers, one of which opens and closes the hidden units (SwiGLU)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(WIDTH, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return y


class Fused(nn.Module):
    """The same with gate and hidden units in one layer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(WIDTH, 2 * hidden), nn.Linear(hidden, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(x).chunk(2, dim=-1)
        y: Tensor = self.down(F.silu(gate) * up)
        return y


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and before an addition."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mlp = mlp
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        z: Tensor = x + self.scale * self.mlp(self.norm2(x))
        return z


class Transformer(nn.Module):
    """Blocks, and a head that has hidden units of its own, which no shortcut passes by."""

    def __init__(self, hidden: Sequence[int], mlp: MLP) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(mlp(n)) for n in hidden))
        self.head = nn.Sequential(nn.Linear(WIDTH, 12), nn.Tanh(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(x).mean(1))
        return logits


def made(make: Callable[[], nn.Module]) -> nn.Module:
    model = make().double().eval()
    redraw(model, 1)
    return model


def prefix(model: nn.Module, twin: nn.Module) -> nn.Module:
    """The twin with the first entries of the model's weights, of fused layers of each half."""
    given = model.state_dict()
    for name, tensor in twin.double().eval().state_dict().items():
        halves = given[name].chunk(2) if ".both." in name else (given[name],)
        targets = tensor.chunk(2) if ".both." in name else (tensor,)
        for target, source in zip(targets, halves, strict=True):
            target.copy_(source[tuple(slice(n) for n in target.shape)])
    return twin


@pytest.mark.parametrize("mlp", [Mlp, Gated, Fused], ids=["plain", "gated", "fused"])
def test_levels_are_the_transformer_with_fewer_hidden_units(mlp: MLP, tmp_path: Path) -> None:
    model = made(lambda: Transformer((HIDDEN, HIDDEN), mlp))
    levels: dict[str, float | list[float]] = {"s": 0.125, "mixed": [4, 0.5], "xl": 1.0}
    sizes = {"s": (2, 2), "mixed": (4, 8), "xl": (HIDDEN, HIDDEN)}
    nested = from_matformer(model, X, levels)
    for found in (nested, saved_and_loaded(nested, tmp_path)):
        for level, hidden in sizes.items():
            twin = prefix(model, Transformer(hidden, mlp))
            with torch.no_grad():
                assert_exact(found, level, X, twin(X))
            count = sum(p.numel() for p in twin.parameters())
            assert inspect(found).levels[level].parameters == count
    assert nested.nesting.is_chain()


class Encoder(nn.Module):
    """torch's own layers, whose norms follow the additions."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, hidden, batch_first=True) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_mlps_of_torch_s_own_layers_are_found() -> None:
    model = made(lambda: Encoder(HIDDEN))
    nested = from_matformer(model, X, {"s": 4})
    assert_exact(nested, "s", X, prefix(model, Encoder(4))(X).detach())


class Twice(nn.Module):
    """Two MLPs in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.b(F.relu(self.a(x)))
        y: Tensor = x + self.d(F.relu(self.c(x)))
        return y


class Deep(nn.Module):
    """An MLP of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.c(F.relu(self.b(F.relu(self.a(x)))))
        return y


class Shared(nn.Module):
    """Hidden units that something else reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.a(x))
        return x + self.b(hidden), self.c(hidden)


class Headless(nn.Module):
    """Hidden units without a shortcut around them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(F.relu(self.a(x)))
        return y


AMBIGUOUS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "two in one block": (Twice, "the network: 'a' and 'c' are both hidden units of one block"),
    "three layers": (Deep, "'b' stands behind a linear layer of the same MLP"),
    "read elsewhere": (Shared, "'a' is also an axis of 'c.weight'; say which by nest"),
    "none": (Headless, "found no MLP: .* the linear layers are 'a', 'b'$"),
}


@pytest.mark.parametrize(("make", "message"), list(AMBIGUOUS.values()), ids=list(AMBIGUOUS))
def test_hidden_units_that_are_not_clear_are_refused(
    make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        from_matformer(made(make), X, {"s": 0.5})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([0.5], "level 's': expected 2 widths for the MLPs .*, found 1"),
        (0.3, "level 's', axis 'blocks.0.mlp.fc1': 0.3 of 16 units is no whole number"),
        (17, "expected a width of 1 to 16 units, found 17"),
        (0, "expected a width of 1 to 16 units, found 0"),
        (True, "expected a width of 1 to 16 units, found True"),
    ],
    ids=["too few", "a fraction", "too wide", "nothing", "a truth value"],
)
def test_widths_that_cannot_be_are_refused(asked: float | list[float], message: str) -> None:
    model = made(lambda: Transformer((HIDDEN, HIDDEN), Mlp))
    with pytest.raises(UsageError, match=message):
        from_matformer(model, X, {"s": asked})
