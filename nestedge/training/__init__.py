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
from nestedge.training.apg import AcceleratedProximalGradient
from nestedge.training.asni import (
    ScheduledPruning,
    Sigmoid,
    sparsity_schedule,
    two_segment_schedule,
)
from nestedge.training.batches import Batch, Batches
from nestedge.training.checkpoints import Checkpoints
from nestedge.training.connections import learn_connections
from nestedge.training.evolution import (
    Candidate,
    Evolution,
    Found,
    macs_of,
    parameters_of,
    recalibrated_accuracy,
    search,
)
from nestedge.training.fake_quantization import FakeQuantization
from nestedge.training.loop import train
from nestedge.training.nested_masks import nested_masks, random_masks
from nestedge.training.objectives import (
    Objective,
    Step,
    full_objective,
    joint_objective,
    labelled_loss,
    multitask_objective,
    sandwich_objective,
)
from nestedge.training.progress import Progress
from nestedge.training.recalibration import recalibrate
from nestedge.training.scale_factors import ScaleFactors, add_scale_factors
from nestedge.training.shrinking import (
    Phase,
    Shrinking,
    cosine_rate,
    delayed_shrinking,
    early_shrinking,
    progressive_shrinking,
    rate_schedule,
    rates_in_turn,
)
from nestedge.training.sorting import Sorting, sort_after, sort_channels
from nestedge.training.space import Space, space_of
from nestedge.training.sparsity import Sparsity, prunable_weights
from nestedge.training.sss import JointOptimizer, sss_optimizer
from nestedge.training.structures import Structure
from nestedge.training.subnets import Subnets
from nestedge.training.supernet import frozen, shrinking_objective
from nestedge.training.ternary import TernaryStart, start_from, ternary_start
from nestedge.training.ternary_file import read_start, start_sizes, write_start

__all__ = [
    "AcceleratedProximalGradient",
    "Batch",
    "Batches",
    "Candidate",
    "Checkpoints",
    "Diversity",
    "Evolution",
    "FakeQuantization",
    "Found",
    "JointOptimizer",
    "Objective",
    "Phase",
    "Progress",
    "ScaleFactors",
    "ScheduledPruning",
    "Shrinking",
    "Sigmoid",
    "Sorting",
    "Space",
    "Sparsity",
    "Step",
    "Structure",
    "Subnets",
    "TernaryStart",
    "UpdateScaling",
    "accuracy",
    "add_scale_factors",
    "affine_scaling",
    "cosine_rate",
    "delayed_shrinking",
    "early_shrinking",
    "frozen",
    "full_objective",
    "joint_objective",
    "labelled_loss",
    "learn_connections",
    "log_sum",
    "macs_of",
    "multitask_objective",
    "nested_masks",
    "p_norm_like",
    "parameters_of",
    "progressive_shrinking",
    "prunable_weights",
    "random_masks",
    "rate_schedule",
    "rates_in_turn",
    "read_start",
    "recalibrate",
    "recalibrated_accuracy",
    "sandwich_objective",
    "scale_updates",
    "search",
    "shrinking_objective",
    "sort_after",
    "sort_channels",
    "space_of",
    "sparsity_schedule",
    "sss_optimizer",
    "start_from",
    "start_sizes",
    "ternary_start",
    "train",
    "two_segment_schedule",
    "write_start",
]
