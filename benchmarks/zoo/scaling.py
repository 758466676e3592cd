"""Weights under which what a deep network gives depends on its input, at any of its levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from benchmarks.networks.redraw import redraw
from benchmarks.zoo.networks import Subject, with_cases

LEAST_VARIANCE = 0.1
PIXELS = 2**15
"""That batch norms take statistics of: of two small images, they multiply rounding by 1e5."""


def randomise(subject: Subject, *, seed: int) -> None:
    """Redraw every parameter and buffer, and settle the network."""
    redraw(subject.module, seed=seed)
    settle(subject, seed=seed)


def settle(subject: Subject, *, seed: int) -> None:
    """Scale and centre one layer after the other, so that activations are of order 1 and vary.

    Drawn alone, a hundred layers overflow, or what they give no longer depends on the input, and
    hides what is wrong in front of them. So a layer's weight is divided by the deviation of what
    it first gives, as in LSUV (Mishkin and Matas, 2016, arXiv:1511.06422), its bias centres that,
    and a batch norm takes the statistics of what it gets. All of them stay off by a random share.
    """
    has_norms = any(isinstance(module, _BatchNorm) for module in subject.module.modules())
    cases = PIXELS // subject.inputs[0][0, 0].numel() if has_norms else 0
    inputs = with_cases(subject, cases, seed=seed).inputs
    generator = torch.Generator().manual_seed(seed)
    done: set[nn.Module] = set()

    def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> Any:
        change = _change(module)
        if module in done or change is None:
            return output
        done.add(module)
        change(module, args[0], output, generator)
        return module.forward(*args, **kwargs)

    layers = subject.module.modules()
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in layers]
    with torch.no_grad():
        subject.module(*inputs)
    for handle in handles:
        handle.remove()


def _change(module: nn.Module) -> Callable[[Any, Tensor, Tensor, torch.Generator], None] | None:
    if isinstance(module, _BatchNorm):
        return _norm
    return _layer if isinstance(module, _ConvNd | nn.Linear) else None


def _layer(module: Any, _: Tensor, output: Tensor, generator: torch.Generator) -> None:
    across = -1 if isinstance(module, nn.Linear) else 1
    mean, variance = _statistics(output, across)
    if not variance.max() > 0:
        return
    # Channels that a level lacks are zero, and count in no average.
    deviation = variance[variance > 0].mean().sqrt()
    module.weight.div_(deviation)
    if module.bias is not None:
        live = variance > 0
        drawn = 0.2 * torch.randn(mean.shape, generator=generator)
        module.bias.copy_(torch.where(live, (module.bias - mean) / deviation + drawn, module.bias))


def _norm(module: Any, given: Tensor, _: Tensor, generator: torch.Generator) -> None:
    mean, variance = _statistics(given, 1)
    if not variance.max() > 0:
        return
    # A few values of a channel may happen to be alike.
    variance = variance.clamp_min(LEAST_VARIANCE * float(variance[variance > 0].mean()))
    drawn = 0.2 * torch.randn(mean.shape, generator=generator)
    module.running_mean.copy_(mean + drawn * variance.sqrt())
    module.running_var.copy_(variance * (0.6 + torch.rand(mean.shape, generator=generator)))


def _statistics(value: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    by_channel = value.movedim(dim, 0).flatten(1)
    return by_channel.mean(1), by_channel.var(1)


@contextmanager
def live_norms(module: nn.Module) -> Iterator[None]:
    """Inside, every layer norm is one over its live channels: those whose weight is not zero.

    Absent channels are zero, which is neutral everywhere but in a mean over channels.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm) and m.elementwise_affine]
    handles = [norm.register_forward_hook(_over_live) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _over_live(norm: Any, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
    # Torchvision's LayerNorm2d is over the channels of an image.
    dim = 1 if type(norm).__name__ == "LayerNorm2d" else -1
    value = args[0].movedim(dim, -1)
    live = norm.weight.count_nonzero()
    mean = value.sum(-1, keepdim=True) / live
    centred = (value - mean) * (norm.weight != 0)
    variance = centred.square().sum(-1, keepdim=True) / live
    result = centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    moved: Tensor = result.movedim(-1, dim)
    return moved
