"""Which artifact to use on a device within a budget, and why none of the others."""

from nestedge.selection.budget import Budget
from nestedge.selection.candidate import Candidate, candidates
from nestedge.selection.choice import Selection, select
from nestedge.selection.device import DeviceSelection, select_for_device
from nestedge.selection.quantities import format_size, parse_duration, parse_size

__all__ = [
    "Budget",
    "Candidate",
    "DeviceSelection",
    "Selection",
    "candidates",
    "format_size",
    "parse_duration",
    "parse_size",
    "select",
    "select_for_device",
]
