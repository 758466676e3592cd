"""Training nested networks: one loop, one objective per method, and batch-norm recalibration."""

from nestedge.training.accuracy import accuracy
from nestedge.training.affine_scaling import (
    Diversity,
    UpdateScaling,
    affine_scaling,
    log_sum,
    p_norm_like,
    scale_updates,
)
from nestedge.training.batches import Batch, Batches
from nestedge.training.checkpoints import Checkpoints
from nestedge.training.connections import learn_connections
from nestedge.training.loop import train
from nestedge.training.nested_masks import nested_masks, random_masks
from nestedge.training.objectives import (
    Objective,
    Step,
    joint_objective,
    labelled_loss,
    multitask_objective,
    sandwich_objective,
)
from nestedge.training.progress import Progress
from nestedge.training.recalibration import recalibrate

__all__ = [
    "Batch",
    "Batches",
    "Checkpoints",
    "Diversity",
    "Objective",
    "Progress",
    "Step",
    "UpdateScaling",
    "accuracy",
    "affine_scaling",
    "joint_objective",
    "labelled_loss",
    "learn_connections",
    "log_sum",
    "multitask_objective",
    "nested_masks",
    "p_norm_like",
    "random_masks",
    "recalibrate",
    "sandwich_objective",
    "scale_updates",
    "train",
]
