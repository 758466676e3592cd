"""Consensus levels, added to a network: several levels run, and their outputs are joined.

NestedNet (Kim, Ahn & Oh, CVPR 2018, arXiv:1712.03781) has two: NestedNet-A averages the outputs of
all levels, NestedNet-L puts one learned fully connected layer on their concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from nestedge.errors import UsageError
from nestedge.joining import Consensus, Layer, Of
from nestedge.levels import check_name
from nestedge.model import NestedModel
from nestedge.program.serialization import dtype_name
from nestedge.stored import layer_specs
from nestedge.tree import named
from nestedge.voting import check_consensus, common_outputs, form_of


def add_consensus(
    nested: NestedModel,
    name: str,
    members: Sequence[str],
    *,
    output: str | None = None,
    learned: bool = False,
    of: Of = "outputs",
) -> None:
    """Add a level that runs others and joins their outputs.

    It runs, trains, ships and is inspected as any level. Gradients reach the members too, unless
    their parameters take none.

    Args:
        nested: the network.
        name: of the level.
        members: the levels whose outputs are joined.
        output: which output, by name; None is the only one that all members give.
        learned: whether one layer on their concatenation joins them (NestedNet-L), which the level
            has of its own, and which gives the average until it is trained; else their average
            does (NestedNet-A).
        of: what is joined: "outputs" as they are, as in the paper, or "probabilities": the softmax
            of each.

    Raises:
        UsageError: the name is taken, there are not two different members, or the output is not
            one of all of them, or of a shape that cannot be joined.
    """
    check_name(name)
    consensus = _consensus(nested, members, output=output, learned=learned, of=of)
    nesting = nested.nesting.with_consensus(name, consensus)
    check_consensus(nested.elastic, nesting, name)
    nested.nesting = nesting
    device = next((tensor.device for tensor in named(nested.shared).values()), None)
    layer = _averaging_layer(consensus)
    nested.register_own(name, {n: nn.Parameter(t.to(device)) for n, t in layer.items()})


def _consensus(
    nested: NestedModel, members: Sequence[str], *, output: str | None, learned: bool, of: Of
) -> Consensus:
    common = common_outputs(nested.elastic, nested.nesting, members)
    if output is None and len(common) != 1:
        raise UsageError(
            f"consensus of {list(members)}: expected one output that all of them give, found "
            f"{common}; {'name one of these' if common else 'give them one in common'}"
        )
    consensus = Consensus(tuple(members), common[0] if output is None else output, of)
    if not learned:
        return consensus
    shape, dtype = form_of(nested.elastic, consensus.output)
    return replace(consensus, layer=Layer(shape[-1] if shape else 1, dtype_name(dtype)))


def _averaging_layer(consensus: Consensus) -> dict[str, torch.Tensor]:
    """The weight and bias of a learned layer with which it gives the average, to start from."""
    if consensus.layer is None:
        return {}
    count, dtype = len(consensus.members), layer_specs(consensus)["weight"].dtype
    one = torch.eye(consensus.layer.classes, dtype=dtype) / count
    return {"weight": one.repeat(1, count), "bias": torch.zeros(len(one), dtype=dtype)}
