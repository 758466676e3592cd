"""Parameters and multiply-accumulates of a network, counted while it runs.

Independent of how nestedge counts: hooks on the layers see the tensors that really pass.
"""

import math

import torch
from torch import Tensor, nn

from benchmarks.networks.vit import Attention, MultiheadAttention


def count_parameters(model: nn.Module) -> int:
    """Number of trained values: parameters, without buffers; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example_input: Tensor) -> int:
    """Multiply-accumulates of one forward pass, of all images of the batch together.

    Counted are convolutions, linear layers and the two matrix products of every attention; not
    biases, norms, activations, pooling and additions.

    Args:
        model: a network of this package, or any whose matrix products are torch's layers.
        example_input: shape (batch, ...).
    """
    macs = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += _module_macs(module, inputs[0], output)

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    try:
        with torch.no_grad():
            model(example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return macs


def _module_macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """What the module itself multiplies, without the modules inside it."""
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, Attention):
        return _attention_macs(module, x)
    if isinstance(module, MultiheadAttention):
        # The four projections are here too: torch's class applies its weights itself, without
        # calling the layers that a hook could see.
        projections = 4 * math.prod(x.shape) * module.heads * module.head_dim
        seen = 0 if isinstance(module.attention, nn.MultiheadAttention) else projections // 4
        return _attention_macs(module, x) + projections - seen
    return 0


def _attention_macs(module: Attention | MultiheadAttention, x: Tensor) -> int:
    """Queries times keys, and weights times values."""
    batch, tokens, _ = x.shape
    return 2 * batch * module.heads * tokens * tokens * module.head_dim
