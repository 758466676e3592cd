"""What travels with a nested network besides its weights."""

from __future__ import annotations

from dataclasses import dataclass

from nestedge.plan import BatchNorm
from nestedge.preprocessing import Preprocessing


@dataclass(frozen=True)
class Card:
    """What travels with the weights, for those who feed and read the network.

    Attributes:
        labels: class names in the order of the logits.
        preprocessing: how an image becomes the input.
        divisor: what widths are rounded to a multiple of.
        batch_norm: "switchable": every level has batch-norm weights, biases and statistics of
            its own (slimmable networks, Yu et al., 2019, arXiv:1812.08928); "statistics": the
            weights and biases are shared; "shared": the statistics too, as in a supernet whose
            subnets are recalibrated when they are taken out.
        own: patterns of the names of other tensors of which every level that is not the whole
            network has a copy of its own, as NestedNet's levels have a head each: ("fc.*",).
    """

    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    divisor: int = 8
    batch_norm: BatchNorm = "switchable"
    own: tuple[str, ...] = ()
