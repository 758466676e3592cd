"""Training in several processes, of one machine or more, that torchrun has started.

Each process trains the same network on a share of every batch. Their gradients are averaged once a
step, after the backward passes of all levels: what DistributedDataParallel would do, without an
exchange for every level and without asking which parameters a level leaves unused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist


def processes() -> int:
    """How many processes train together: 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes checkpoints."""
    return processes() == 1 or dist.get_rank() == 0


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if processes() > 1:
        dist.barrier()


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Give all processes the tensors of the first one."""
    for tensor in tensors if processes() > 1 else ():
        dist.broadcast(tensor, src=0)


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Give all processes the mean of each tensor; integers are left alone."""
    count = processes()
    for group in _by_kind(tensors) if count > 1 else ():
        # One exchange for many tensors: its latency is the cost of small ones.
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        pieces = torch.split(flat.div_(count), [tensor.numel() for tensor in group])
        for tensor, piece in zip(group, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))


def average_gradients(parameters: Iterable[torch.nn.Parameter], loss: float) -> float:
    """Average the gradients of all processes, and the loss, which is given back.

    A parameter that no level of this step has used has no gradient in any process, because all of
    them train the same levels.
    """
    if processes() == 1:
        return loss
    gradients = [p.grad for p in parameters if p.grad is not None]
    device = gradients[0].device if gradients else None
    found = torch.tensor([loss], dtype=torch.float64, device=device)
    average([*gradients, found])
    return float(found)


def _by_kind(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    groups: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = defaultdict(list)
    for tensor in tensors:
        if tensor.is_floating_point():
            groups[tensor.dtype, tensor.device].append(tensor)
    yield from groups.values()
