"""The table of reasons, which is docs/errors.md too, word for word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One row of the table.

    Attributes:
        code: its name.
        meaning: what went wrong, in one sentence.
        remedy: what to do.
        signs: regular expressions, one of which a framework's words match.
    """

    code: str
    meaning: str
    remedy: str
    signs: tuple[str, ...] = ()


_ALL = (
    Reason(
        "out-of-memory",
        "The machine has too little memory for the conversion.",
        "build with -j 1, build fewer levels at a time, or use a machine with more memory",
        (
            r"\bMemoryError\b",
            r"bad_alloc",
            r"can't allocate memory|[Nn]ot enough memory|[Oo]ut of memory",
        ),
    ),
    Reason(
        "missing-dependency",
        "A package or a program that the converter runs is not installed.",
        "install it; 'nestedge doctor' says what to type",
        (r"\bModuleNotFoundError\b",),
    ),
    Reason(
        "data-dependent",
        "Values decide which way the network goes.",
        "no level could be cut from it: compute it outside the network, or nest the part before it",
        (
            r"\bGuardOnDataDependentSymNode\b",
            r"Could not guard on data-dependent|\bUserError\b.*data-dependent",
        ),
    ),
    Reason(
        "dynamic-shape",
        "Values decide how large a tensor is, as with nonzero or x[x > 0].",
        "no level could be cut from it: keep every entry and set some to zero with torch.where, or "
        "compute it outside the network",
        (
            r"\bDynamicOutputShapeException\b",
            r"register_meta function for torch\.nonzero",
            r"dynamic shape operator",
        ),
    ),
    Reason(
        "complex-numbers",
        "The network computes with complex numbers.",
        "compute the real and the imaginary part as tensors of their own",
        (r"tensor<[^>]*complex<", r"\bcomplex(?:64|128)\b", r"\bComplex(?:Float|Double)\b"),
    ),
    Reason(
        "custom-function",
        "The network calls an autograd function of its own that cannot be exported.",
        "write it with torch's operators, or call those in evaluation mode",
        (r"autograd\.[Ff]unction", r"HigherOrderOperator: autograd_function"),
    ),
    Reason(
        "file-too-large",
        "The file would be larger than its format can be.",
        "weights beside the file are not supported: nest a smaller level and build that",
        (
            r"exceeds maximum protobuf size",
            r"\bEncodeError\b.*serialize proto",
            r"larger than 2 ?G",
        ),
    ),
    Reason(
        "constant-too-large",
        "A large tensor of one repeated number is more than the compiler unpacks.",
        "train the weight first, or make the tensor from a smaller one by expand",
        (r"Couldn't convert tensor proto to tensor",),
    ),
    Reason(
        "python-word",
        "A module has a name that is a word of Python's, which the framework writes into code.",
        "rename the module, as in class_ for class",
        (r"SyntaxError: invalid syntax \(<eval_with_key>",),
    ),
    Reason(
        "name-clash",
        "An input or an output has the name that the framework gives to an operator.",
        "rename the argument of forward, or the key of the output, as in image for conv2d",
        (r"Duplicate definition of name", r"\bCycleError\b"),
    ),
    Reason(
        "nothing-to-quantise",
        "The level has no layer that the target computes in this precision.",
        "build fp32",
        (r"nothing in it can be quantised",),
    ),
    Reason(
        "output-lost",
        "A tool merged or dropped an output of the network.",
        "give every output once, each computed by a layer of its own, or build fp32",
        (r"outputs \[.*\] are lost",),
    ),
    Reason(
        "too-many-dimensions",
        "A tensor has more dimensions than the target's operators take.",
        "join dimensions with reshape before the line, or build for another runtime",
        (
            r"[Dd]imensions? (?:exceeds?|greater than|more than)",
            r"unsupported rank",
            r"rank .* not supported",
        ),
    ),
    Reason(
        "unsupported-dtype",
        "The target does not compute in a type that the network has.",
        "convert the network with model.float() and give it inputs of float32",
        (
            r"tensor<[\dx]*f64>",
            r"\btensor\(double\)",
            r"\bfloat64\b",
            r"\btensor\(bfloat16\)",
            r"[Uu]nsupported (?:ir element |data ?)?type",
        ),
    ),
    Reason(
        "unparsable-by-tensorrt",
        "TensorRT's parser does not take an operator, or the form that it has here.",
        "write the line with other operators, or build for onnx, which a Jetson runs too",
    ),
    Reason(
        "fixed-batch",
        "An operator is fixed to the batch size that the level was exported with.",
        "build the engine without --batch, or write the line so that each sample of a batch is "
        "computed by itself",
    ),
    Reason(
        "refused-by-runtime",
        "The file is written, but the runtime that is to run it does not open it.",
        "write the line with operators that the runtime has, or build for another runtime",
        (
            r"Didn't find op for builtin opcode",
            r"Could not find an implementation for",
            r"failed to prepare",
        ),
    ),
    Reason(
        "unsupported-operator",
        "The target, or nestedge itself, has no form of an operator.",
        "write the line with other operators, or nest the part of the network without it",
        (
            r"No ONNX function found for",
            r"Lowering not found",
            r"failed to legalize operation",
            r"\bno rule for operator",
            r"\b(?:NotImplementedError|DispatchError|GraphConstructionError):",
            r"[Uu]nsupported operator",
        ),
    ),
    Reason(
        "empty-tensor",
        "A tensor has no entries, and no runtime is given one.",
        "leave what is empty out of the network",
    ),
    Reason(
        "not-finite-weight",
        "A weight is not a number or infinite, and so is what the level gives.",
        "train on from the last checkpoint whose weights are finite",
    ),
    Reason(
        "not-finite-output",
        "The level gives a number that is not one, so that no artifact can be checked against it.",
        "find the operator that makes it: a division by zero, a logarithm, or numbers too large",
    ),
    Reason(
        "out-of-range-for-fp16",
        "A weight is larger than half precision can hold.",
        "build fp32, or scale the weight down and its output up",
    ),
    Reason(
        "quantiser-failed",
        "The tool that makes the precision of the converted level failed.",
        "build fp32 or another precision; the log has what the tool printed",
    ),
    Reason(
        "accuracy-lost",
        "8 bits cost more accuracy than --max-drop allows, whatever layers fall back.",
        "allow more, calibrate with inputs more like the data, or build fp16 or fp32",
    ),
    Reason(
        "wrong-constant",
        "A constant of the file is not what its expression gives.",
        "this is an error of the converter, please report it",
    ),
    Reason(
        "wrong-file",
        "The file has other inputs, outputs or operators than the network.",
        "take another route, as in --tflite-route litert-torch, or build for another runtime",
        (r"made up operators of its own", r"is missing, found \["),
    ),
    Reason(
        "program-failed",
        "A program that the converter runs as a process of its own failed.",
        "take another route, as in --tflite-route litert-torch; the log has what it printed",
    ),
    Reason(
        "in-place",
        "The network changes a stored tensor, or a part of one that it reads later, in place.",
        "write the line out of place, or assign the parts with torch.cat",
    ),
    Reason(
        "autocast",
        "A part of the network runs under torch.autocast, whose types no file says.",
        "nest it without, and build the precision that is wanted",
    ),
    Reason(
        "bad-inputs",
        "The example inputs do not fit the network.",
        "give the inputs that its forward takes, tensors with the batch as axis 0",
        (r"example inputs do not fit",),
    ),
    Reason(
        "not-exportable",
        "torch.export cannot take the network as it is written.",
        "write the line so that torch.export takes it: tensors in, tensors out, no other Python",
    ),
    Reason(
        "converter-crashed",
        "The process that converts ended by a signal or by itself, as C++ code does.",
        "the log has the last words; build the other cells, and report it to the framework",
    ),
    Reason(
        "converter-refused",
        "A converter gives a reason of its own.",
        "do what it says, or build for another runtime",
    ),
    Reason(
        "converter-failed",
        "A framework failed with an error that this table has no row for.",
        "the log has the whole of it; build for another runtime, or report it to the framework",
    ),
    Reason(
        "no-calibration-data",
        "The precision needs the ranges of real inputs, and none are given.",
        "give --calibration DIR, or nest with calibration inputs",
        (r"needs calibration data",),
    ),
    Reason(
        "no-such-precision",
        "The converter does not have the precision.",
        "build another precision, or for another runtime",
        (r"no precision '", r"does not have (?:fp|int)\d+"),
    ),
    Reason(
        "unknown",
        "nestedge, or a converter that someone plugged in, failed as it should not.",
        "the log has the whole of it; please report it",
    ),
)

REASONS: dict[str, Reason] = {reason.code: reason for reason in _ALL}
"""Every reason by its code, in this order: the first whose sign is found names the reason."""
