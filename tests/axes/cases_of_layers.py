"""Cases of layers, attention, reductions and resampling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.axes.small import Case, Op, op, sized, tokens

aten = torch.ops.aten


def _heads(x: torch.Tensor, channels: int) -> torch.Tensor:
    return tokens(x).reshape(x.shape[0], -1, channels // 4, 4).transpose(1, 2)


def _image(x: torch.Tensor, channels: int) -> torch.Tensor:
    return (
        x.transpose(1, 2)
        .reshape(x.shape[0], -1, channels)
        .transpose(1, 2)
        .reshape(x.shape[0], channels, 4, 4)
    )


def _by_products(x: torch.Tensor, c: int) -> torch.Tensor:
    q = _heads(x, c)
    return _image((q @ q.transpose(-1, -2) / 2).softmax(-1) @ q, c)


def _by_batched_products(x: torch.Tensor, c: int) -> torch.Tensor:
    q = _heads(x, c).reshape(x.shape[0] * (c // 4), -1, 4)
    scores = torch.baddbmm(q.mean(2, keepdim=True), q, q.transpose(1, 2), alpha=0.5)
    return _image(torch.bmm(scores.log_softmax(-1), q).reshape(x.shape[0], c // 4, -1, 4), c)


def _causal(x: torch.Tensor, c: int) -> torch.Tensor:
    q = _heads(x, c)
    return _image(F.scaled_dot_product_attention(q, q, q, is_causal=True), c)


def _per_head(c: int) -> nn.Module:
    def apply(s: Any, x: torch.Tensor) -> torch.Tensor:
        # The channels of a head are few and the same for all heads, and batch and heads are one.
        return s.k(x.reshape(x.shape[0] * (c // 4), 4, 4, 4)).reshape(x.shape[0], c, 4, 4)  # type: ignore[no-any-return]

    return Op(apply, k=nn.Conv2d(4, 4, 1))


def _one_head(x: torch.Tensor) -> torch.Tensor:
    q = tokens(x)
    return F.scaled_dot_product_attention(q, q, q, scale=0.5).mean(1)


def _excited(c: int) -> nn.Module:
    return Op(
        lambda s, x: x * s.up(F.relu(s.down(x.mean((2, 3), keepdim=True)))).sigmoid(),
        down=nn.Conv2d(c, c // 2, 1),
        up=nn.Conv2d(c // 2, c, 1),
    )


def _last(norm: nn.Module) -> nn.Module:
    return Op(lambda s, x: s.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=norm)


def _summed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A product of matrices in four spellings."""
    pixels = x.permute(0, 2, 3, 1)
    named = torch.einsum("bchw,oc->bohw", x, weight)
    behind = torch.einsum("...c,oc->...o", pixels, weight).permute(0, 3, 1, 2)
    implied = torch.einsum("bchw, oc", x, weight).permute(0, 2, 1, 3)
    outer: torch.Tensor = torch.einsum("bchw,bdhw->bdc", x, x).softmax(-1)
    return named + behind * 2 + implied + outer.mean(-1)[:, :, None, None]


def _recurrent(c: int) -> nn.Module:
    """Two layers of two directions with biases, and one of each without."""

    def apply(s: Any, x: torch.Tensor) -> torch.Tensor:
        both = s.lstm(tokens(x))[0]
        found, (_, state) = s.back(s.gru(both)[0])
        result: torch.Tensor = found + state[0].unsqueeze(1)
        return result

    return Op(
        apply,
        lstm=nn.LSTM(c, c // 2, num_layers=2, bidirectional=True, batch_first=True),
        gru=nn.GRU(c, 2 * c, bias=False, batch_first=True),
        back=nn.LSTM(2 * c, c, batch_first=True),
    )


LAYERS = {
    "recurrent": Case(_recurrent, head="linear"),
    "weight norm": Case(lambda c: nn.utils.parametrizations.weight_norm(nn.Conv2d(c, c, 3))),
    "patches added up": Case(op(lambda x: F.fold(x.flatten(2), (8, 8), (2, 2), stride=2))),
    "einsum": Case(
        lambda c: Op(
            lambda s, x: _summed(x, s.w),
            w=nn.Parameter(torch.ones(c, c, dtype=torch.float64)),
        )
    ),
    "depthwise": Case(lambda c: nn.Conv2d(c, 2 * c, 3, padding="same", groups=c)),
    "grouped": Case(lambda c: nn.Conv2d(c, 2 * c, 3, groups=c // 4)),
    "conv1d": Case(
        lambda c: nn.Sequential(nn.Conv1d(c, c, 3, padding="same"), nn.ConvTranspose1d(c, c, 3)),
        dims=1,
    ),
    "conv3d": Case(
        lambda c: nn.Sequential(nn.Conv3d(c, c, 3, padding="same"), nn.ConvTranspose3d(c, c, 2)),
        dims=3,
    ),
    "transposed": Case(lambda c: nn.ConvTranspose2d(c, 2 * c, 3, stride=2, output_padding=1)),
    "grouped transposed": Case(lambda c: nn.ConvTranspose2d(c, 2 * c, 3, groups=c // 4)),
    "convolution of heads": Case(_per_head),
    "batch norm": Case(nn.BatchNorm2d),
    "batch norm of vectors": Case(
        lambda c: Op(lambda s, x: s.n(x.mean((2, 3))), n=nn.BatchNorm1d(c)), head="linear"
    ),
    "batch norm of the batch": Case(
        lambda c: nn.BatchNorm2d(c, affine=False, track_running_stats=False)
    ),
    "group norm": Case(lambda c: nn.GroupNorm(c // 4, c)),
    "group norm of one group": Case(lambda c: nn.GroupNorm(1, c)),
    "instance norm": Case(lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True)),
    "layer norm": Case(lambda c: _last(nn.LayerNorm(c))),
    "layer norm of maps": Case(lambda c: nn.LayerNorm([c, 4, 4])),
    "rms norm": Case(lambda c: _last(nn.RMSNorm(c))),
    "prelu": Case(lambda c: nn.Sequential(nn.PReLU(c), nn.PReLU())),
    "squeeze-excite": Case(_excited),
    "mixer": Case(
        lambda c: Op(
            lambda s, x: s.b(F.gelu(s.a(x.flatten(2)))).reshape(x.shape[0], -1, 4, 4),
            a=nn.Linear(16, c),
            b=nn.Linear(c, 16),
        )
    ),
    "products": Case(
        lambda c: Op(
            lambda s, x: torch.addmm(s.b, torch.mm(s.v(x), s.w), s.w) + (s.v(x) @ s.b)[:, None],
            v=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
            w=nn.Parameter(torch.ones(c, c)),
            b=nn.Parameter(torch.ones(c)),
        ),
        head="linear",
    ),
    "attention by products": Case(sized(_by_products)),
    "attention by batched products": Case(sized(_by_batched_products)),
    "causal attention": Case(sized(_causal)),
    "one head": Case(op(_one_head), head="linear"),
    "multihead": Case(
        lambda c: Op(
            lambda s, x: s.a(tokens(x), tokens(x), tokens(x))[0].mean(1),
            a=nn.MultiheadAttention(c, c // 4, batch_first=True),
        ),
        head="linear",
    ),
    "covariance": Case(
        op(lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)).flatten(1)),
        head="linear",
        kept="all",
    ),
}

REDUCTIONS = {
    "mean over channels": Case(
        op(lambda x: x * x.mean(1, keepdim=True) + x.mean((2, 3), keepdim=True))
    ),
    "sums": Case(op(lambda x: x * x.sum((1, 2), keepdim=True).tanh() + x.sum(3, keepdim=True))),
    "whole": Case(op(lambda x: x * x.mean() + x.sum().tanh())),
    "extremes": Case(op(lambda x: x * x.amax(1, keepdim=True) + x.amin((2, 3), keepdim=True))),
    "deviations": Case(
        op(
            lambda x: (
                x * aten.var.correction(x, [1], correction=1, keepdim=True)
                + aten.std.correction(x, [2, 3], correction=1, keepdim=True)
                + aten.var.dim(x, [1], True, True)
                + aten.std.dim(x, [1], True, True)
            )
        )
    ),
    "variances of pixels": Case(
        op(lambda x: aten.var.correction(x, [2, 3], correction=1, keepdim=True))
    ),
    "norms": Case(
        op(
            lambda x: (
                x / torch.linalg.vector_norm(x, dim=1, keepdim=True) + x.logsumexp(1, keepdim=True)
            )
        )
    ),
    "prod": Case(op(lambda x: x * (x * 0.1 + 1).prod(1, keepdim=True))),
    "max": Case(op(lambda x: x * x.max(1, keepdim=True)[0]), kept="all"),
    "min of pixels": Case(op(lambda x: x * x.min(2, keepdim=True)[0])),
    "argmax": Case(op(lambda x: x * x.argmax(1, keepdim=True)), kept="all"),
    "argmin of pixels": Case(op(lambda x: x * x.argmin(3, keepdim=True))),
    "all": Case(
        op(lambda x: x * (x > -1).all(1, keepdim=True) + (x > -0.5).all(2, keepdim=True).double())
    ),
    "softmax": Case(op(lambda x: x.softmax(1) + x.log_softmax(2))),
    "cumsum": Case(op(lambda x: x.cumsum(1))),
    "outputs": Case(op(lambda x: x.relu()), head="none", kept="all"),
    "output of tokens": Case(op(lambda x: x.mean(2)), head="none", kept="all"),
}

_MODES = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}


def _resampled(x: torch.Tensor, dims: int) -> torch.Tensor:
    pooled = [
        getattr(F, f"{name}_pool{dims}d")(x, 2)
        for name in ("max", "avg", "adaptive_avg", "adaptive_max")
    ]
    modes = ("nearest", *_MODES[dims])
    sizes = [F.interpolate(x, scale_factor=0.5, mode=mode) for mode in modes]
    return torch.stack([*pooled, *sizes]).sum(0)


SPATIAL = {
    **{f"resampled {d}d": Case(op(lambda x, d=d: _resampled(x, d)), dims=d) for d in (1, 2, 3)},
    "indices of maxima": Case(
        op(lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[1].to(x.dtype)), kept="share"
    ),
}
