"""Wide ResNets as levels of a deeper and wider one: NestedNet's combined scheduling."""

from __future__ import annotations

from glob import escape

import numpy as np

from benchmarks.networks.wrn import Shortcut, WideResNet
from nestedge.levels import Level
from nestedge.masks import Mask


def wide_level(layers: int, widen: int, full: WideResNet, *, shortcut: Shortcut = "pad") -> Level:
    """WRN-layers-widen as a level of a deeper and wider one.

    The stem keeps its 16 channels in every WRN. With padded shortcuts the channels of a stage are
    those of the stage before and new ones behind. WRN-x-1 has no new ones in its first stage, which
    no width says: it has them, and masks that leave none of their readers a weight for them.

    Args:
        layers: 6 n + 2 for n blocks a stage.
        widen: multiplies the channels of the three stages.
        full: the network, nested with a divisor of 1.
        shortcut: of the network.
    """
    channels = [16 * widen * 2**stage for stage in range(3)]
    width: dict[str, float | int] = {f"stages.{s}.*conv1": c for s, c in enumerate(channels)}
    masks: dict[str, Mask] = {}
    if shortcut == "projection":
        width |= {f"stages.{s}.0.conv2": c for s, c in enumerate(channels)}
    else:
        stages = [stage[0].conv2.out_channels for stage in full.stages]  # type: ignore[index]
        before = [16, *stages[:2]]
        new = np.diff([16, *channels]).tolist()
        for stage, (start, stop, count) in enumerate(zip(before, stages, new, strict=True)):
            if count:
                width[escape(f"stages.{stage}.0.conv2[{start}:{stop}]")] = count
            else:
                masks = _unread(full, start, stop)
    return Level(width, depth=((layers - 2) // 6,) * 3, masks=masks)


def _unread(full: WideResNet, start: int, stop: int) -> dict[str, Mask]:
    """Masks under which no layer reads some channels of the trunk."""
    masks = {}
    for name, parameter in full.named_parameters():
        if (name.startswith("stages") and name.endswith("conv1.weight")) or name == "fc.weight":
            masks[name] = np.ones(parameter.shape, dtype=bool)
            masks[name][:, start:stop] = False
    return masks
