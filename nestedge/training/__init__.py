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
from nestedge.training.asni import (
    ScheduledPruning,
    Sigmoid,
    sparsity_schedule,
    two_segment_schedule,
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
from nestedge.training.sparsity import Sparsity
from nestedge.training.ternary import TernaryStart, start_from, ternary_start
from nestedge.training.ternary_file import read_start, start_sizes, write_start

__all__ = [
    "Batch",
    "Batches",
    "Checkpoints",
    "Diversity",
    "Objective",
    "Progress",
    "ScheduledPruning",
    "Sigmoid",
    "Sparsity",
    "Step",
    "TernaryStart",
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
    "read_start",
    "recalibrate",
    "sandwich_objective",
    "scale_updates",
    "sparsity_schedule",
    "start_from",
    "start_sizes",
    "ternary_start",
    "train",
    "two_segment_schedule",
    "write_start",
]
