"""Cases of operators that look entries up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.axes.small import Case, Op, op, sized


def _embedded(c: int) -> nn.Module:
    return Op(
        lambda s, x: x + s.table(s.ids).t().unsqueeze(-1),
        table=nn.Embedding(7, c),
        ids=torch.tensor([1, 4, 2, 6]),
    )


def _at(function: Callable[[Any, Any], Any], *shape: int, last: int = 4) -> nn.Module:
    """A function of the value and of indices of a shape, below `last`."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, last, (1, *shape), generator=generator)
    return Op(lambda s, x: function(x, s.ids.expand(x.shape[0], -1, -1, -1)), ids=ids)


def _scattered(c: int) -> nn.Module:
    def apply(s: Any, x: torch.Tensor) -> torch.Tensor:
        ids, src = (value.expand(x.shape[0], -1, -1, -1) for value in (s.ids, s.src))
        return x.scatter(2, ids, 0.5) + x.scatter(2, ids, src) * 2 + x.scatter_add(2, ids, src) * 3

    generator = torch.Generator().manual_seed(0)
    ids = torch.rand((1, c, 4, 3), generator=generator).argsort(2)[:, :, :2]
    return Op(apply, ids=ids, src=torch.rand((1, c, 3, 4), generator=generator).double())


def _by_head(x: torch.Tensor, c: int) -> torch.Tensor:
    heads = x.reshape(x.shape[0] * (c // 4), 4, 16)
    ids = torch.tensor([0, 5, 2, 15]).expand(heads.shape[0], 4, 4)
    made = x.new_zeros(heads.shape[0], 4, 4) + x.new_ones(heads.shape[0], 1, 1)
    return (heads.gather(2, ids) + made).reshape(x.shape[0], c, 2, 2)


INDEXING = {
    "gather of heads": Case(sized(_by_head)),
    "gather": Case(lambda c: _at(lambda x, ids: x.gather(2, ids), c, 2, 4)),
    "gather of fewer": Case(
        lambda c: _at(lambda x, ids: x.gather(2, ids), c // 2, 2, 4), kept="all"
    ),
    "gather of channels": Case(
        lambda c: _at(lambda x, ids: x.gather(1, ids), c, 4, 4, last=c), kept="some"
    ),
    "scatter": Case(_scattered),
    "scatter of fewer": Case(
        lambda c: _at(lambda x, ids: x.scatter(2, ids, 0.5), c // 2, 2, 4), kept="all"
    ),
    "scatter of channels": Case(
        lambda c: _at(lambda x, ids: x.scatter(1, ids, 0.5), 6, 4, 4, last=c), kept="all"
    ),
    "order of pixels": Case(
        op(lambda x: x.topk(2, 2)[0] + x.sort(2)[0][:, :, 1:3] + x.argsort(2)[:, :, :2])
    ),
    "order of channels": Case(op(lambda x: x.topk(4, 1)[0]), kept="all"),
    "index": Case(op(lambda x: x[:, :, torch.tensor([[1, 0], [3, 2]]), torch.tensor([0, 2])])),
    "index of a table": Case(
        lambda c: Op(
            lambda s, x: x + s.table[s.ids].t().unsqueeze(-1),
            table=nn.Parameter(torch.rand(7, c, dtype=torch.float64)),
            ids=torch.tensor([1, 4, 2, 6]),
        )
    ),
    "index apart": Case(
        lambda c: Op(
            lambda s, x: x + s.table[s.ids, :, s.ids].t().unsqueeze(-1),
            table=nn.Parameter(torch.rand(4, c, 4, dtype=torch.float64)),
            ids=torch.tensor([1, 3, 2, 0]),
        )
    ),
    "index_select": Case(
        lambda c: Op(lambda s, x: x.index_select(2, s.rows), rows=torch.tensor([2, 0, 1]))
    ),
    "index_select of channels": Case(
        lambda c: Op(lambda s, x: x.index_select(1, s.order), order=torch.arange(c).flip(0)),
        kept="some",
    ),
    "embedding": Case(_embedded),
}
