"""Which operators of a TFLite file compute in floating point, so that some layers can."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.recipe_manager import RecipeManager

_WEIGHT = 1
"""Which input of a layer its weight is."""

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class FloatPart:
    """The operators of a file that are not quantised.

    Attributes:
        layers: kinds of those with weights in half precision, by the name of their output.
        others: kinds of the others, by the name of their output.
        weights: names of the weights of the layers.
    """

    layers: Mapping[str, str]
    others: Mapping[str, str]
    weights: frozenset[str]

    def add_to(self, recipe: RecipeManager) -> None:
        """Adds the rules that leave these operators as they are; a later rule wins."""
        for output, kind in self.layers.items():
            recipe.add_weight_only_config(
                _only(output),
                TFLOperationName(kind),
                num_bits=16,
                algorithm_key=AlgorithmName.FLOAT_CASTING,
            )
        for output, kind in self.others.items():
            recipe.add_quantization_config(
                _only(output), TFLOperationName(kind), algorithm_key=AlgorithmName.NO_QUANTIZE
            )


NOTHING = FloatPart({}, {}, frozenset())
"""Everything is quantised."""


@dataclass(frozen=True)
class _Operator:
    kind: str
    output: str
    data: tuple[str, ...]
    weight: str


def float_part(model: bytes, weights: Collection[str]) -> FloatPart:
    """The operators that compute in floating point where the layers of some weights do.

    What makes the input of such a layer is among them: an operator of whole numbers gives whole
    numbers, and the layer would read what rounding has left. That is followed through operators of
    one input up to the first of several, or up to a layer, whose weight is in half precision then.

    Args:
        model: in single precision.
        weights: names of tensors.
    """
    operators = list(_operators(model))
    makers = {operator.output: operator for operator in operators}
    chosen, others = set(weights), dict[str, str]()
    for operator in operators:
        maker = makers.get(operator.data[0]) if operator.weight in weights else None
        while maker is not None:
            if maker.weight:
                chosen.add(maker.weight)
                break
            others[maker.output] = maker.kind
            maker = makers.get(maker.data[0]) if len(maker.data) == 1 else None
    layers = {found.output: found.kind for found in operators if found.weight in chosen}
    known = {kind.value for kind in TFLOperationName}
    others = {output: kind for output, kind in others.items() if kind in known}
    return FloatPart(layers, others, frozenset(chosen))


def _only(output: str) -> str:
    """What the quantiser matches with an operator: the names of its outputs, each with a ';'."""
    return f"^{re.escape(output)};$"


def _operators(content: bytes) -> Iterator[_Operator]:
    model: Any = schema.Model.GetRootAs(content, 0)
    graph, names = model.Subgraphs(0), {n: k for k, n in vars(schema.BuiltinOperator).items()}
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        # An input that is left out is -1.
        inputs = [graph.Tensors(int(i)) for i in operator.InputsAsNumpy() if i >= 0]
        constant = [_is_constant(model, tensor) for tensor in inputs]
        is_layer = kind in _LAYERS and constant[_WEIGHT]
        yield _Operator(
            kind=kind,
            output=graph.Tensors(operator.Outputs(0)).Name().decode(),
            data=tuple(t.Name().decode() for t, c in zip(inputs, constant, strict=True) if not c),
            weight=inputs[_WEIGHT].Name().decode() if is_layer else "",
        )


def _is_constant(model: Any, tensor: Any) -> bool:
    buffer = model.Buffers(tensor.Buffer())
    return not buffer.DataIsNone() or bool(buffer.Size())
