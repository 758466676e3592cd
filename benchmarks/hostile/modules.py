"""The modules and functions that hostile networks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Function, *, last: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.middle = Middle(function)
        self.last = nn.Linear(last, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 4)."""
        y: Tensor = self.last(self.middle(self.first(x)))
        return y


class Middle(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(x)


class Behind(nn.Module):
    """A function behind a convolution."""

    def __init__(self, function: Function, *, dims: int = 2) -> None:
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(3, 8, 3, padding=1)
        self.tail = Middle(function)

    def forward(self, x: Tensor) -> Tensor:
        """What the function gives of 8 channels."""
        y: Tensor = self.tail(self.conv(x))
        return y


class Twice(nn.Module):
    """One value under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The same tensor as "first" and "second"."""
        y = self.layer(x)
        return {"first": y, "second": y}


class Weighted(nn.Module):
    """A layer, one weight of which is what it should not be."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.last = nn.Linear(8, 4)
        with torch.no_grad():
            self.last.weight[1, 2] = value

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 4)."""
        y: Tensor = self.last(torch.relu(self.first(x)))
        return y


class Names(nn.Module):
    """Names of operators and of another alphabet, and one to choose."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self.add_module("слой", nn.Linear(8, 8))
        self.add_module("linear_1", nn.Linear(8, 8))
        self.add_module(last, nn.Linear(8, 4))
        self._name_of_last = last

    def forward(self, linear: Tensor) -> dict[str, Tensor]:
        """An output with the name of an input of the graph, and one that no file name has."""
        y = torch.relu(self.get_submodule("linear_1")(self.get_submodule("слой")(linear)))
        return {"linear_1": y * 2, "выход/0": self.get_submodule(self._name_of_last)(y)}


class Large(nn.Module):
    """More weights than a protobuf holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.table = nn.Parameter(torch.zeros(8, 70 * 2**20))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 1)."""
        y: Tensor = self.first(x) @ self.table
        return y.amax(1, keepdim=True)


class Constant(nn.Module):
    """A constant of 16 MB that forward makes, and no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, 1)."""
        y: Tensor = self.first(x)
        waves = torch.sin(torch.arange(2**22, dtype=torch.float32)).reshape(8, -1)
        return (y @ waves).amax(1, keepdim=True)


class Recurrent(nn.Module):
    """An LSTM, all of whose outputs are given."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The outputs and both states."""
        found: tuple[Tensor, tuple[Tensor, Tensor]] = self.lstm(x)
        return found


def select(x: Tensor) -> Tensor:
    """The rows whose sum is positive."""
    return x[x.sum(1) > 0]


def branch(x: Tensor) -> Tensor:
    """One of two ways."""
    return x + 1 if x.sum() > 0 else x


def through_numpy(x: Tensor) -> Tensor:
    """The same numbers, by way of numpy."""
    return torch.from_numpy(x.detach().numpy())


def spectrum(x: Tensor) -> Tensor:
    """Magnitudes of a Fourier transform."""
    y: Tensor = torch.fft.fft(x)
    return y.abs()


def as_complex(x: Tensor) -> Tensor:
    """Magnitudes of pairs."""
    return torch.view_as_complex(x.reshape(-1, 4, 2)).abs().repeat(1, 2)


def inverse(x: Tensor) -> Tensor:
    """The first row of an inverse."""
    y: Tensor = torch.linalg.inv(x[:, :, None] * x[:, None])
    return y[:, 0]


def attend(x: Tensor) -> Tensor:
    """Attention without heads."""
    y = x[:, None]
    return F.scaled_dot_product_attention(y, y, y)[:, 0]


def ranked(x: Tensor) -> Tensor:
    """In ascending order."""
    return x.sort(1)[0]


def nothing_over_nothing(x: Tensor) -> Tensor:
    """Zero over zero."""
    return (x - x) / (x - x)


def many_dimensions(x: Tensor) -> Tensor:
    """Eight dimensions, reversed."""
    return x.reshape(-1, 2, 2, 2, 4, 4, 4, 4).permute(0, 7, 6, 5, 4, 3, 2, 1) + 1


def folded(x: Tensor) -> Tensor:
    """Patches, put back."""
    return F.fold(F.unfold(x, 3), (16, 16), 3)


def added_at(x: Tensor) -> Tensor:
    """Numbers added at places."""
    return torch.zeros_like(x).scatter_add(1, x.argsort(1), x)
