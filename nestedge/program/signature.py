"""What the operators of the allow-list take and give, as far as a program file is held to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from nestedge.documents import Value
from nestedge.errors import FormatError
from nestedge.program.operators import resolve


@dataclass(frozen=True)
class Signature:
    """What an operator takes and gives.

    Attributes:
        names: of its arguments, in order.
        positional: how many may be given by position.
        words: those that may be strings.
        outputs: how many values it gives; None where that depends on the arguments.
    """

    names: tuple[str, ...]
    positional: int
    words: frozenset[str]
    outputs: int | None

    def bind(self, args: Value, kwargs: Value) -> dict[str, Value]:
        """The arguments given, by name and in order.

        Raises:
            FormatError: there are too many, or one is unknown or given twice.
        """
        positional = args.elements()
        if len(positional) > self.positional:
            raise args.error(f"at most {self.positional} arguments")
        free = self.names[len(positional) :]
        for key, value in kwargs.members().items():
            if key not in free:
                raise FormatError(f"{value.where}: unknown; expected {', '.join(free) or 'none'}")
        return {**dict(zip(self.names, positional, strict=False)), **kwargs.members()}


@cache
def signature_of(op: str) -> Signature:
    """What an operator takes and gives.

    Raises:
        FormatError: the operator is not allowed, or this torch does not have it.
    """
    function = resolve(op)
    if not isinstance(function, torch._ops.OpOverload):
        operands = ("a",) if op == "sym.neg" else ("a", "b")
        return Signature(operands, len(operands), frozenset(), 1)
    schema = function._schema
    return Signature(
        names=tuple(argument.name for argument in schema.arguments),
        positional=sum(not argument.kwarg_only for argument in schema.arguments),
        words=frozenset(a.name for a in schema.arguments if "str" in str(a.type)),
        outputs=None if "List" in str(schema.returns[0].type) else len(schema.returns),
    )
