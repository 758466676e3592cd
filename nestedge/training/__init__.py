"""Training nested networks: one loop, one objective per method, and batch-norm recalibration."""

from nestedge.training.accuracy import accuracy
from nestedge.training.batches import Batch, Batches
from nestedge.training.loop import Progress, train
from nestedge.training.objectives import Objective, joint_objective, sandwich_objective
from nestedge.training.recalibration import recalibrate

__all__ = [
    "Batch",
    "Batches",
    "Objective",
    "Progress",
    "accuracy",
    "joint_objective",
    "recalibrate",
    "sandwich_objective",
    "train",
]
