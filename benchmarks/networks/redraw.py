"""Random weights under which no weight goes unseen.

A freshly made network hides mistakes: biases are zero, norms are the identity, all statistics
alike. After `redraw` every value is another one and matters for the output.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def redraw(model: nn.Module, seed: int) -> None:
    """Redraws every parameter and floating-point buffer in place, from the seed alone.

    Weights of a layer are normal with variance 1.5 / fan-in (5 / fan-in in a grouped
    convolution), its biases normal with deviation 0.2; a norm's weights and variances are uniform
    around 1, its biases and means normal with deviation 0.2; LayerScale factors are uniform in
    [0.5, 1]; token and position tables normal with deviation 0.5. The outputs of networks of a few
    dozen layers stay between 1 and 100.

    Args:
        model: its parameters are written; integer buffers stay.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            tensors = [
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ]
            for name, tensor in tensors:
                if tensor.is_floating_point():
                    tensor.copy_(_draw(module, name, tensor, generator))


def _draw(module: nn.Module, name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
        if name == "weight":
            return _uniform(tensor, 0.6, 1.4, generator)
        if name == "running_var":
            return _uniform(tensor, 0.6, 1.6, generator)
        return _normal(tensor, 0.2, generator)
    if "scale" in name:
        return _uniform(tensor, 0.5, 1.0, generator)
    if name.endswith("bias"):
        return _normal(tensor, 0.2, generator)
    if name.endswith("weight"):
        # A depthwise layer sums nine products only, and an SE gate behind it halves what it gives.
        gain = 5.0 if getattr(module, "groups", 1) > 1 else 1.5
        return _normal(tensor, math.sqrt(gain / tensor[0].numel()), generator)
    return _normal(tensor, 0.5, generator)


def _normal(tensor: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return deviation * torch.randn(tensor.shape, generator=generator)


def _uniform(tensor: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(tensor.shape, generator=generator)
