"""Sparse structure selection: what becomes zero, and what is left when that is taken out."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.seeds.family import TWINS
from benchmarks.seeds.trial import FULL, Record, Trial, Variant
from nestedge.cost import count_macs, count_parameters
from nestedge.materialization import materialize
from nestedge.training.objectives import full_objective
from nestedge.training.scale_factors import add_scale_factors
from nestedge.training.sss import sss_optimizer
from nestedge.verify import relative_error

GAMMAS = (0.005,)
"""Weights of the factors' l1 norm; the authors' example, for 100 epochs of ImageNet, is 0.01."""

SELECTED = "selected"


def selected(gamma: float, trial: Trial) -> Record:
    """Factors trained with the weights, then all structures taken out whose factor is zero."""
    nested = trial.nested(TWINS[FULL])
    factors = add_scale_factors(nested)
    optimizer = sss_optimizer(nested, factors, lr=trial.rate, gamma=gamma)
    trial.fit(nested, full_objective(F.cross_entropy), optimizer=optimizer)
    factors.fold(nested)
    nested.add_level(SELECTED, factors.kept())
    inputs, _ = trial.images.test()[0]
    nested.eval()
    with torch.no_grad():
        whole = nested(inputs)
        small = materialize(nested, SELECTED).module()(inputs)
    programs = {level: nested.plan(level).program for level in (FULL, SELECTED)}
    macs, parameters = (
        count(programs[SELECTED]) / count(programs[FULL])
        for count in (count_macs, count_parameters)
    )
    return {
        "accuracies": trial.accuracies(nested, (FULL, SELECTED)),
        "macs": macs,
        "parameters": parameters,
        "kept": factors.counts(),
        "error": relative_error(small.numpy(), whole.numpy()),
    }


VARIANTS: dict[str, Variant] = {f"gamma {gamma:g}": partial(selected, gamma) for gamma in GAMMAS}
