"""Where the operators of an artifact run: on the accelerator that was asked for, or elsewhere.

Runtimes leave operators that an accelerator lacks to the processor, and say so in a log that nobody
reads. A runtime plug-in that can be asked is asked; where the hardware is elsewhere, the log that
its tools wrote there is read. How much of an artifact is on the accelerator is counted in its
multiply-accumulates, since one convolution there outweighs a hundred reshapes here.
"""

from nestedge.placement.description import Operator, Placed, Placement
from nestedge.placement.folder import (
    Placements,
    PlacingRuntime,
    check_share,
    place_folder,
    placement_from_log,
    placement_of,
)
from nestedge.placement.logs import read_log

__all__ = [
    "Operator",
    "Placed",
    "Placement",
    "Placements",
    "PlacingRuntime",
    "check_share",
    "place_folder",
    "placement_from_log",
    "placement_of",
    "read_log",
]
