"""The operators that a program may hold, by how the axes of their tensors relate.

This is the allow-list: capturing a network with another operator is an error, and so is loading
a file that names one. The rules themselves are in nestedge.axes, one per group.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from nestedge.errors import FormatError, did_you_mean


def _aten(names: str) -> frozenset[str]:
    """Full overload names from a list of names; `.default` may be left out."""
    return frozenset(
        f"aten.{name}" if "." in name else f"aten.{name}.default" for name in names.split()
    )


UNARY = _aten(
    """abs alias celu ceil clamp clamp_max clamp_min clone contiguous cos detach dropout elu erf
    exp expm1 feature_dropout fill.Scalar fill.Tensor floor full_like gelu hardsigmoid
    hardswish hardtanh leaky_relu log log1p log_sigmoid logical_not logit mish neg ones_like
    reciprocal relu relu6 round rsqrt selu sigmoid sign silu sin softplus sqrt square tan
    tanh to.dtype to.dtype_layout _to_copy trunc zero zeros_like add.Scalar sub.Scalar
    mul.Scalar div.Scalar pow.Tensor_Scalar rsub.Scalar eq.Scalar ne.Scalar lt.Scalar
    le.Scalar gt.Scalar ge.Scalar pow.Scalar bitwise_not"""
)
"""Element by element on one tensor."""

COMPARISON = _aten(
    """eq.Scalar ne.Scalar lt.Scalar le.Scalar gt.Scalar ge.Scalar
    eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor
    logical_not logical_and logical_or bitwise_not bitwise_and.Tensor bitwise_or.Tensor"""
)
"""Those of the element-wise operators that give truth values."""

JOIN = _aten(
    """add.Tensor sub.Tensor mul.Tensor div.Tensor div.Tensor_mode pow.Tensor_Tensor maximum minimum
    where.self eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor logical_and logical_or
    masked_fill.Scalar masked_fill.Tensor where.ScalarSelf where.ScalarOther where.Scalar
    lerp.Tensor lerp.Scalar addcmul addcdiv copy bitwise_and.Tensor bitwise_or.Tensor"""
)
"""Element by element on several tensors, broadcast."""

MOVEMENT = _aten(
    """reshape permute transpose.int t flatten.using_ints unflatten.int unsqueeze squeeze
    squeeze.dim squeeze.dims select.int slice.Tensor narrow chunk split.Tensor split.sizes
    split_with_sizes unbind.int expand expand_as reshape_as repeat movedim.int movedim.intlist roll
    flip swapaxes pixel_shuffle pixel_unshuffle repeat_interleave.self_int tensor_split.indices
    tensor_split.sections tile unfold channel_shuffle"""
)
"""Entries are moved, dropped or repeated, never combined."""

CONVOLUTION = _aten("conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding")
TRANSPOSED_CONVOLUTION = _aten("conv_transpose1d conv_transpose2d.input conv_transpose3d.input")
WEIGHTED = CONVOLUTION | TRANSPOSED_CONVOLUTION | _aten("linear")
"""Layers that multiply what they read by a weight."""
CONTRACTION = _aten("linear matmul mm bmm addmm baddbmm einsum scaled_dot_product_attention")
NORMALISATION = _aten("batch_norm layer_norm group_norm instance_norm rms_norm prelu _weight_norm")
REDUCTION = _aten(
    """mean mean.dim sum sum.dim_IntList amax amin var.correction var.dim std.correction std.dim
    max.dim min.dim argmax argmin linalg_vector_norm logsumexp prod.dim_int all.dim"""
)
"""Dimensions are reduced to one number, over the entries that live."""

ALONG = _aten("softmax.int log_softmax.int cumsum")
"""Entries of one dimension are combined, and it stays."""

SPATIAL = {
    name: dims
    for dims in (1, 2, 3)
    for name in _aten(
        f"""max_pool{dims}d avg_pool{dims}d adaptive_avg_pool{dims}d adaptive_max_pool{dims}d
        """
        + {
            1: "upsample_nearest1d.vec upsample_linear1d.vec",
            2: "upsample_nearest2d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec",
            3: "upsample_nearest3d.vec upsample_trilinear3d.vec",
        }[dims]
    )
}
"""The last dimensions, as many as the value says, are resampled."""

CREATION = _aten(
    """zeros ones full new_zeros new_ones new_full arange arange.start arange.start_step
    linspace scalar_tensor"""
)
"""New tensors, made on the device of the inputs."""

RECURRENT = _aten("lstm.input gru.input")

SCATTER = _aten("scatter.value scatter.src scatter_add")
"""Entries of one dimension are replaced, or added to, by their index in it."""

ORDER = _aten("topk sort argsort")
"""Entries of one dimension by how large they are."""

OTHER = _aten(
    """cat stack pad embedding index_select index.Tensor gather slice_scatter select_scatter diff
    outer grid_sampler im2col col2im meshgrid meshgrid.indexing"""
)

IN_PLACE = _aten("add_.Tensor")
"""Updates of a stored tensor (a counter of batches) that a program may hold."""

SYMBOLIC: dict[str, Callable[..., Any]] = {
    "aten.sym_size.int": torch.ops.aten.sym_size.int,
    "sym.add": operator.add,
    "sym.sub": operator.sub,
    "sym.mul": operator.mul,
    "sym.floordiv": operator.floordiv,
    "sym.mod": operator.mod,
    "sym.neg": operator.neg,
}
"""Integer arithmetic on the batch size."""

ALLOWED = frozenset().union(
    UNARY,
    JOIN,
    MOVEMENT,
    CONVOLUTION,
    TRANSPOSED_CONVOLUTION,
    CONTRACTION,
    NORMALISATION,
    REDUCTION,
    ALONG,
    SPATIAL,
    CREATION,
    RECURRENT,
    SCATTER,
    ORDER,
    OTHER,
    IN_PLACE,
    SYMBOLIC,
)


@cache
def resolve(op: str) -> Callable[..., Any]:
    """The callable of an operator of the allow-list.

    Raises:
        FormatError: the operator is not allowed, or this torch does not have it.
    """
    if op not in ALLOWED:
        raise FormatError(f"operator {op!r} is not allowed{did_you_mean(op, ALLOWED)}")
    if op in SYMBOLIC:
        return SYMBOLIC[op]
    _, name, overload = op.split(".")
    try:
        found: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
    except AttributeError as error:
        raise FormatError(f"torch {torch.__version__} has no operator {op!r}") from error
    return found
