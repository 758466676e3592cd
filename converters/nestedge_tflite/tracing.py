"""Every value that a TFLite model computes on the way, by whichever package has the interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nestedge.errors import FormatError
from nestedge.plugins import Array
from nestedge.verify.trace import Trace, TracedOperator
from nestedge_tflite.session import TfliteSession, open_interpreter


def trace_model(
    make: Callable[..., Any],
    path: Path,
    inputs: Mapping[str, Array],
    *,
    threads: int,
    framework: str,
) -> Trace:
    """One run of the one signature of a model.

    Args:
        make: gives an interpreter of a file that keeps every tensor.
        path: of the file.
        inputs: by name of the signature, as `TfliteSession.run` takes them.
        threads: CPU threads.
        framework: how messages call it.

    Raises:
        UsageError: there is no such file.
        FormatError: the framework does not accept it, or it has not exactly one signature.
        ValueError: an input is missing, unknown, or of another shape or dtype.
    """
    interpreter = open_interpreter(make, path, threads=threads, framework=framework)
    keys = sorted(interpreter.get_signature_list())
    if len(keys) != 1:
        raise FormatError(f"{path}: expected one signature, found {keys}")
    TfliteSession(interpreter, keys[0], path=path).run(inputs)
    runner = interpreter.get_signature_runner(keys[0])
    ends = [
        {name: int(item["index"]) for name, item in details.items()}
        for details in (runner.get_input_details(), runner.get_output_details())
    ]
    return _trace(interpreter, *ends)


def _trace(interpreter: Any, given: Mapping[str, int], found: Mapping[str, int]) -> Trace:
    details = {int(item["index"]): item for item in interpreter.get_tensor_details()}
    names = _names(details)
    operators = list(_operators(interpreter._get_ops_details(), [*given.values()], names))
    made = {name for operator in operators for name in (*operator.inputs, *operator.outputs)}
    values = {
        names[index]: _numbers(interpreter.get_tensor(index), detail)
        for index, detail in details.items()
        if names[index] in made
    }
    return Trace(
        operators=tuple(operators),
        values={name: array for name, array in values.items() if array is not None},
        inputs={name: names[index] for name, index in given.items()},
        outputs={name: names[index] for name, index in found.items()},
    )


def _names(details: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """A name of its own for every tensor: two of a file may share one."""
    counts = Counter(detail["name"] for detail in details.values())
    return {
        index: detail["name"] if counts[detail["name"]] == 1 else f"{detail['name']} [{index}]"
        for index, detail in details.items()
    }


def _operators(
    listed: Sequence[Mapping[str, Any]], given: Sequence[int], names: Mapping[int, str]
) -> Iterator[TracedOperator]:
    """The operators that compute with what goes in.

    Those of constants alone, as the casts of half-precision weights, make a constant: whoever reads
    it reads the constants that it is made of.
    """
    computed = set(given)
    sources: dict[int, tuple[str, ...]] = {}
    for operator in listed:
        # An input that is left out is -1.
        read = [int(index) for index in operator["inputs"] if index >= 0]
        outputs = [int(index) for index in operator["outputs"] if index >= 0]
        constants = [index for index in read if index not in computed]
        made_of = tuple(name for i in constants for name in sources.get(i, (names[i],)))
        if len(constants) == len(read):
            sources.update(dict.fromkeys(outputs, made_of))
            continue
        computed.update(outputs)
        yield TracedOperator(
            kind=operator["op_name"],
            name=f"{operator['op_name']} {operator['index']}",
            inputs=tuple(names[index] for index in read if index in computed),
            outputs=tuple(names[index] for index in outputs),
            constants=made_of,
        )


def _numbers(array: Array, detail: Mapping[str, Any]) -> Array | None:
    """What a tensor stands for; None where it is no tensor of numbers."""
    if array.dtype.kind == "f":
        return array
    quantization = detail["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    if array.dtype.kind not in "iu" or len(scales) != 1:
        return None
    whole = array.astype(np.float64)
    return (whole - float(zero_points[0])) * float(scales[0])
