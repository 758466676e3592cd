"""Other people's nested and pruned checkpoints as nested networks."""

from nestedge.importing.checkpoint import load_plain, read_checkpoint
from nestedge.importing.masks import from_masks
from nestedge.importing.matformer import from_matformer
from nestedge.importing.pruning import fold_pruning
from nestedge.importing.slimmable import from_slimmable
from nestedge.importing.supernet import Subnet, from_supernet

__all__ = [
    "Subnet",
    "fold_pruning",
    "from_masks",
    "from_matformer",
    "from_slimmable",
    "from_supernet",
    "load_plain",
    "read_checkpoint",
]
