"""The matrix: every level for every runtime and precision that some devices have.

`build` itself never imports torch: worker processes do, and only where a cell is missing.
"""

from nestedge.building.run import Built, build
from nestedge.building.wanted import MaxDrop, Request, with_precisions

__all__ = ["Built", "MaxDrop", "Request", "build", "with_precisions"]
