"""What the ONNX parser of TensorRT takes, and from which version on.

The operators are those that onnx-tensorrt's docs/operators.md lists as supported in its branches
8.5-GA to 10.1-GA (Apache-2.0, github.com/onnx/onnx-tensorrt). That an operator is listed does not
mean that each of its attributes is taken.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from nestedge.errors import ConversionError
from nestedge.plugins import TensorInfo
from nestedge.reasons import conversion_error
from nestedge_onnx.shapes import shapes_of
from nestedge_tensorrt.engine import DTYPES, VERSIONS
from nestedge_tensorrt.versions import version_key

_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil
Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample HardSigmoid HardSwish Identity If InstanceNormalization IsNaN LRN LSTM LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan ScatterElements ScatterND
Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""

OPERATORS = frozenset(_NAMES.split())
"""The operators that TensorRT 8.5 and everything later parses."""

_SINCE_8_4 = """
GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal RandomNormalLike
Reciprocal RoiAlign Shrink Trilu Xor
"""

OLDEST_OPERATORS = OPERATORS - frozenset(_SINCE_8_4.split())
"""The operators that TensorRT 8.2 parses too, in opset 13, by its docs/operators.md."""

OLDEST = "8.2"
"""The first TensorRT that a file is made for."""

_OLDEST_OPSET = 13

MOST_DIMENSIONS = 8
"""That a tensor may have: `Dims::MAX_DIMS` in NvInferRuntimeCommon.h, from 8.2 to 11.0."""

LATER = {"LayerNormalization": "8.6", "IsInf": "8.6", "CastLike": "9.2", "Hardmax": "9.2"}
"""The operators of opset 17 that came later, each with the first version that parses it."""


def first_version(model: onnx.ModelProto, tensors: Iterable[TensorInfo]) -> str:
    """The first TensorRT that parses a model, as in "8.6".

    Args:
        model: of opset 17, or of 13.
        tensors: its inputs and outputs.

    Raises:
        ConversionError: none does; the message names the operator or the tensor.
    """
    is_oldest = model.opset_import[0].version <= _OLDEST_OPSET
    versions = {OLDEST if is_oldest else VERSIONS[0]}
    for node in model.graph.node:
        if node.op_type in LATER:
            versions.add(LATER[node.op_type])
        elif node.op_type not in OPERATORS:
            raise unparsable(node, "it has no such operator")
    for info in tensors:
        if info.dtype not in DTYPES:
            said = f"TensorRT takes and gives {', '.join(DTYPES)}; {info.name!r} is {info.dtype}"
            raise conversion_error("unsupported-dtype", said)
        if info.dtype == "int64":
            # Older parsers make int32 of it: another engine than engine.json describes.
            versions.add("10.0")
    return max(versions, key=version_key)


def check_ranks(model: onnx.ModelProto) -> None:
    """Refuses tensors of more dimensions than TensorRT has.

    Raises:
        ConversionError: naming the operator that gives or reads one.
    """
    ranks = {name: len(shape) for name, shape in shapes_of(model).items()}
    ranks |= {item.name: len(item.dims) for item in model.graph.initializer}
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if ranks.get(name, 0) > MOST_DIMENSIONS:
                raise conversion_error(
                    "too-many-dimensions",
                    f"TensorRT has tensors of at most {MOST_DIMENSIONS} dimensions; {name!r} of "
                    f"{node.op_type} ({node.name!r}) has {ranks[name]}",
                    operator=node.op_type,
                )


def unparsable(node: onnx.NodeProto, reason: str) -> ConversionError:
    """The error that says which operator TensorRT's parser does not take, and why."""
    said = f"TensorRT cannot parse {node.op_type} ({node.name!r}): {reason}"
    return conversion_error("unparsable-by-tensorrt", said, operator=node.op_type)
