"""nestedge: deploy nested networks, one set of weights that holds several networks.

The names below are imported when they are first used: `import nestedge` never imports torch, so
that what runs on a device needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nestedge.errors import MissingDependencyError, did_you_mean

if TYPE_CHECKING:
    from nestedge.consensus import add_consensus
    from nestedge.devices.widths import width_multiple
    from nestedge.importing import (
        Subnet,
        from_masks,
        from_matformer,
        from_slimmable,
        from_supernet,
    )
    from nestedge.levels import Level
    from nestedge.materialization import materialize, state_dict
    from nestedge.nested import Card, NestedModel, nest
    from nestedge.nestfile import load
    from nestedge.preprocessing import Preprocessing
    from nestedge.runtime import NestedRuntime
    from nestedge.training.recalibration import recalibrate

__all__ = [
    "Card",
    "Level",
    "NestedModel",
    "NestedRuntime",
    "Preprocessing",
    "Subnet",
    "__version__",
    "add_consensus",
    "from_masks",
    "from_matformer",
    "from_slimmable",
    "from_supernet",
    "load",
    "materialize",
    "nest",
    "recalibrate",
    "state_dict",
    "width_multiple",
]

__version__ = "0.1.0"

_HOMES = {
    "Card": "nestedge.nested",
    "Level": "nestedge.levels",
    "NestedModel": "nestedge.nested",
    "NestedRuntime": "nestedge.runtime",
    "Preprocessing": "nestedge.preprocessing",
    "Subnet": "nestedge.importing",
    "add_consensus": "nestedge.consensus",
    "from_masks": "nestedge.importing",
    "from_matformer": "nestedge.importing",
    "from_slimmable": "nestedge.importing",
    "from_supernet": "nestedge.importing",
    "load": "nestedge.nestfile",
    "materialize": "nestedge.materialization",
    "nest": "nestedge.nested",
    "recalibrate": "nestedge.training.recalibration",
    "state_dict": "nestedge.materialization",
    "width_multiple": "nestedge.devices.widths",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'nestedge' has no attribute {name!r}{did_you_mean(name, _HOMES)}"
        )
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError(
            f"nestedge.{name} needs torch: pip install 'nestedge[convert]'"
        ) from error


def __dir__() -> list[str]:
    return list(__all__)
