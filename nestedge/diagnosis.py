"""What a framework's exception says of the network: the reason, the operator, the user's line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType

from torch.fx import Node as FxNode

from nestedge.errors import (
    CaptureError,
    ConversionError,
    Diagnosis,
    MissingDependencyError,
    NestedgeError,
)
from nestedge.program.graph import Node, Program
from nestedge.program.lines import without_folder
from nestedge.program.shapes import trace_shapes
from nestedge.reasons import code_of, diagnosis

# What litert-torch's compiler calls an operator, where ATen calls it otherwise.
_STEMS = {"batch_matmul": r"matmul|mm|linear", "fully_connected": "linear", "conv_2d": "conv2d"}
_RANK = 5
"""The most dimensions that TFLite's element-wise operators take beyond doubt."""


def failed(
    task: str, error: BaseException, program: Program | None = None, *, otherwise: str
) -> ConversionError:
    """A framework's error as one that has a code.

    Args:
        task: what failed, as in "torch.onnx cannot export the level".
        error: what the framework raised.
        program: of the level; the operator and the user's line are looked up in it.
        otherwise: the code where the error is a sign of no other.
    """
    given = next((e for e in _chain(error) if isinstance(e, ConversionError)), None)
    if given is not None:
        return given
    words = _words(error)
    code = _code(words, otherwise=otherwise)
    node = None if program is None else _node(error, words, program)
    operator = node.op if node else _operator(words)
    source = source_of(program, node) if program and node else ""
    said = f"{task}: {_reason(error)}"
    return ConversionError(diagnosis(code, said, operator=operator, source=source))


def diagnose(error: Exception, program: Program | None) -> Diagnosis:
    """Why an action failed, whatever was raised.

    Args:
        error: an error that says its reason, one of nestedge's that does not, or any other.
        program: of the level that was converted, if there is one.
    """
    if isinstance(error, (ConversionError, CaptureError)):
        return _placed(error.diagnosis, program)
    if isinstance(error, NestedgeError):
        is_missing = isinstance(error, MissingDependencyError)
        otherwise = "missing-dependency" if is_missing else "converter-refused"
        found = failed(str(error), error, program, otherwise=otherwise).diagnosis
        return replace(found, said=_plain(str(error)))
    return failed("the conversion failed", error, program, otherwise="unknown").diagnosis


def source_of(program: Program, node: Node) -> str:
    """Where an operator stands in the user's network, as in "head (Head), net.py:12"."""
    kind = program.modules.get(node.scope, "")
    module = node.scope or "the network"
    named = f"{module} ({kind})" if kind else module
    return ", ".join(part for part in (named, without_folder(node.line)) if part)


def _placed(found: Diagnosis, program: Program | None) -> Diagnosis:
    """With the operator, and its place where what is said of a file names one of the program."""
    found = replace(found, operator=found.operator or _operator(found.said))
    if program is None or found.source:
        return found
    names = _fx_names(program)
    told = (name.removeprefix("node_").split("__")[0] for name in re.findall(r"[\w.]+", found.said))
    node = next((names[name] for name in told if name in names), None) or _by_stem(found, program)
    if node is None:
        return found
    return replace(found, source=f"{node.op}, {source_of(program, node)}")


def _by_stem(found: Diagnosis, program: Program) -> Node | None:
    """The one operator that LiteRT's name for it is made from, as STABLEHLO_SORT."""
    stem = found.operator.removeprefix("STABLEHLO_").lower()
    nodes = [node for node in program.nodes if stem and stem in node.op]
    is_litert = found.operator.startswith("STABLEHLO_")
    return nodes[0] if is_litert and len(nodes) == 1 else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _words(error: BaseException) -> str:
    return "\n".join(f"{type(item).__name__}: {item}" for item in _chain(error))


def _reason(error: BaseException) -> str:
    """The first line of the error that came first, short, and without folders of this machine."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = _plain((lines or [""])[0])
    is_word = isinstance(error, (KeyError, AssertionError)) or len(first) < len("no reason")
    return f"{type(error).__name__}: {first}".rstrip(": ") if is_word else first


def _plain(text: str) -> str:
    """Words without the place in our own code, and with file names for paths."""
    text = re.sub(r"\S*emit\.py:\d+:\d+: error: ", "", text)
    text = re.sub(r"(?<![\w.])(?:/[^\s/:'\"]+)+/(?=[^\s/])", "", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}..."


_LONGEST = 240


def _code(words: str, *, otherwise: str) -> str:
    code = code_of(words, otherwise=otherwise)
    if code == "unsupported-operator":
        ranks = [len(dims.split("x")) - 1 for dims in re.findall(r"tensor<([\dx]+)", words)]
        return "too-many-dimensions" if max(ranks, default=0) > _RANK else code
    return code


def _operator(words: str) -> str:
    """An operator that an error names: ATen's, TFLite's or ONNX's."""
    for sign in (
        r"\b(aten\.\w+(?:\.\w+)?)",
        r"failed to legalize operation '([\w.]+)'",
        r"TFLOperationName\.(\w+)",
        r"builtin opcode '(\w+)'",
        r"implementation for (\w+)\(",
        r"\((\w+)\) failed to prepare",
    ):
        if found := re.search(sign, words):
            return found[1]
    return ""


def _node(error: BaseException, words: str, program: Program) -> Node | None:
    """The operator of the program that an error is about."""
    names = _fx_names(program)
    for item in list(_chain(error))[::-1]:
        for fx in _fx_nodes(item.__traceback__):
            node = names.get(_origin(fx))
            if node is not None:
                return node
    return _by_shape(words, program)


def _fx_nodes(traceback: TracebackType | None) -> Iterator[FxNode]:
    """The nodes that the frames of an error were at, the innermost frame first."""
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    for frame in reversed(frames):
        found = [frame.f_locals.get(name) for name in ("node", "n", "fx_node")]
        yield from (fx for fx in found if isinstance(fx, FxNode) and fx.op == "call_function")


def _origin(fx: FxNode) -> str:
    """The name that a node had before operators were taken apart."""
    sources = fx.meta.get("from_node") or []
    name = fx.name
    while sources:
        name, sources = sources[-1].name, sources[-1].from_node or []
    return name


def _fx_names(program: Program) -> dict[str, Node]:
    """The operators of a program by the names that tracing it gives them.

    >>> nodes = [Node(f"aten.{op}.default", (), {}, (op,)) for op in ("relu", "sin", "relu")]
    >>> from nestedge.program.structure import Structure
    >>> none = Structure("dict")
    >>> list(_fx_names(Program((), none, tuple(nodes), (), none, {})))
    ['relu', 'sin', 'relu_1']
    """
    taken = {spec.name for spec in program.inputs}
    found: dict[str, Node] = {}
    for node in program.nodes:
        base = name = node.op.split(".")[1]
        count = 0
        while name in taken or name in found:
            count += 1
            name = f"{base}_{count}"
        found[name] = node
    return found


def _by_shape(words: str, program: Program) -> Node | None:
    """The one operator with the name and the result of what a compiler could not express."""
    found = re.search(r"operation '\w+\.(\w+)'.*-> tensor<([\dx]*)", words, re.DOTALL)
    if found is None:
        return None
    shape = [int(size) for size in found[2].split("x") if size]
    stem = _STEMS.get(found[1], found[1])
    shapes = _shapes(program)
    nodes = [
        node
        for node in program.nodes
        if re.search(stem, node.op) and shapes.get(node.outputs[0] or "") == shape
    ]
    return nodes[0] if len(nodes) == 1 else None


def _shapes(program: Program) -> Mapping[str, list[int]]:
    try:
        values = trace_shapes(program, batch=1)
    except NestedgeError:
        return {}
    return {name: list(getattr(value, "shape", ())) for name, value in values.items()}
