"""Batch norms of several processes that train together, over the images of all of them.

As torch.nn.SyncBatchNorm, for programs and on every device: a batch norm that trains takes mean and
variance over the whole batch, so that a step of several processes is that of one with all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.distributed.nn.functional import all_reduce
from torch.overrides import TorchFunctionMode

from nestedge.training.precision import losses_inside

_BATCH_NORM = torch.ops.aten.batch_norm.default


def synchronized(losses: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The same losses, each computed with batch norms over the images of all processes."""
    return losses_inside(losses, _Synchronized)


class _Synchronized(TorchFunctionMode):
    """While it is entered, batch norms that train see the images of all processes."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is _BATCH_NORM and not kwargs:
            x, weight, bias, mean, variance, is_training, momentum, eps, *_ = args
            if is_training:
                x, found = _normalized(x, eps)
                _update((mean, variance), found, momentum)
                return _scaled(x, weight, bias)
        return func(*args, **(kwargs or {}))


def _normalized(
    x: torch.Tensor, eps: float
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """A tensor of mean 0 and variance 1 in every channel, and their mean and unbiased variance.

    The deviations are taken from the mean of all processes: sums of squares alone would lose digits
    where a mean is large.
    """
    kept = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    wide = x.to(kept)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    # In one exchange: processes may have batches of other sizes.
    values = wide.new_full((1,), x.numel() / x.shape[1])
    sums = _summed(torch.cat((wide.sum(axes), values)))
    mean, count = sums[:-1] / sums[-1], sums[-1]
    centred = wide - _per_channel(mean, x)
    variance = _summed(centred.square().sum(axes)) / count
    result = centred * _per_channel(torch.rsqrt(variance + eps), x)
    return result.to(x.dtype), (mean, variance * (count / (count - 1)))


def _summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, each of which gets the gradients of all."""
    total: torch.Tensor = all_reduce(tensor)  # type: ignore[no-untyped-call]
    return total


@torch.no_grad()
def _update(
    running: tuple[torch.Tensor | None, torch.Tensor | None],
    found: tuple[torch.Tensor, torch.Tensor],
    momentum: float,
) -> None:
    for tensor, new in zip(running, found, strict=True):
        if tensor is not None:
            tensor.lerp_(new.to(tensor.dtype), momentum)


def _scaled(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    if weight is not None:
        x = (x * _per_channel(weight, x)).to(x.dtype)
    return x if bias is None else (x + _per_channel(bias, x)).to(x.dtype)


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A vector of channels in a shape that goes with a tensor of them on its second axis."""
    return values.reshape(1, -1, *(1,) * (x.dim() - 2))
