"""Nested inputs and outputs with a stable name for every tensor.

A structure says how named leaves stand in nested dicts, lists and tuples. It is data: it goes
into program.json, and rebuilding a value from it runs no code of the user's.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from nestedge.errors import FormatError, UsageError

Kind = Literal["tensor", "constant", "dict", "list", "tuple"]


@dataclass(frozen=True)
class Structure:
    """One place in a nested value.

    Attributes:
        kind: a named tensor, a constant, or a container.
        name: the tensor's name (kind "tensor").
        value: None, a bool, an int, a float or a string (kind "constant").
        keys: the keys of a dict, in order.
        items: the children of a container, in order.
    """

    kind: Kind
    name: str = ""
    value: bool | int | float | str | None = None
    keys: tuple[str, ...] = ()
    items: tuple[Structure, ...] = ()

    def names(self) -> Iterator[str]:
        """The names of the tensors, in order."""
        return (leaf.name for leaf in self.leaves() if leaf.kind == "tensor")

    def leaves(self) -> Iterator[Structure]:
        """The tensors and constants, in order."""
        if self.kind in ("tensor", "constant"):
            yield self
        for item in self.items:
            yield from item.leaves()


def describe(value: Any, name: str, *, what: str) -> Structure:
    """The structure of a nested value whose tensors are named by their path.

    Names are identifiers, `name_key` or `name_0`, because they become the names of arguments and
    signatures in every runtime.

    Args:
        value: tensors, and None, bools, numbers and strings, in dicts with string keys, lists
            and tuples, or in classes of the user's that are one of these: what stands in them is
            the same, but a program gives the plain kind.
        name: the name of the value. A bare tensor has it as its own.
        what: "input" or "output", for the error.

    Raises:
        UsageError: something else stands in the value, or two tensors have one name.
    """
    structure = _described(value, name, what)
    names = list(structure.names())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two {what}s would be called {twice[0]!r}; rename a key of one")
    return structure


def _described(value: Any, name: str, what: str) -> Structure:
    if isinstance(value, torch.Tensor):
        return Structure("tensor", name=name)
    if value is None or isinstance(value, (bool, int, float, str)):
        return Structure("constant", value=value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = tuple(_described(v, _join(name, k), what) for k, v in value.items())
        return Structure("dict", keys=tuple(value), items=items)
    if isinstance(value, (list, tuple)):
        items = tuple(_described(v, _join(name, str(i)), what) for i, v in enumerate(value))
        return Structure("list" if isinstance(value, list) else "tuple", items=items)
    raise UsageError(
        f"{what} {name!r} is a {type(value).__name__}; expected tensors in dicts with string keys, "
        "lists and tuples: wrap the network in a module that takes and returns those"
    )


def _join(name: str, key: str) -> str:
    joined = re.sub(r"\W", "_", f"{name}_{key}" if name else key, flags=re.ASCII)
    return joined if joined.isidentifier() and not keyword.iskeyword(joined) else f"_{joined}"


def flatten(structure: Structure, value: Any, *, path: str = "input") -> list[torch.Tensor]:
    """The tensors of a value in the order of the structure's names.

    Raises:
        UsageError: the value does not have this structure.
    """
    if structure.kind == "tensor":
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"{path}: expected a tensor, found {type(value).__name__}")
        return [value]
    if structure.kind == "constant":
        if value != structure.value:
            raise UsageError(
                f"{path}: the network was nested with {structure.value!r} here, found {value!r}; "
                "nest it once more for another value"
            )
        return []
    children = _children(structure, value, path)
    return [
        leaf
        for key, item, child in zip(_labels(structure), structure.items, children, strict=True)
        for leaf in flatten(item, child, path=f"{path}.{key}")
    ]


def _children(structure: Structure, value: Any, path: str) -> list[Any]:
    if structure.kind == "dict":
        if not isinstance(value, Mapping) or set(value) != set(structure.keys):
            found = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise UsageError(f"{path}: expected a dict of {list(structure.keys)}, found {found}")
        return [value[key] for key in structure.keys]
    if not isinstance(value, (list, tuple)) or len(value) != len(structure.items):
        raise UsageError(f"{path}: expected {len(structure.items)} values, found {value!r:.60}")
    return list(value)


def _labels(structure: Structure) -> tuple[str, ...]:
    return structure.keys or tuple(str(i) for i in range(len(structure.items)))


def rebuild(structure: Structure, leaves: Iterator[torch.Tensor]) -> Any:
    """The nested value with the given tensors as its leaves, taken in order."""
    if structure.kind == "tensor":
        return next(leaves)
    if structure.kind == "constant":
        return structure.value
    items = [rebuild(item, leaves) for item in structure.items]
    if structure.kind == "dict":
        return dict(zip(structure.keys, items, strict=True))
    return items if structure.kind == "list" else tuple(items)


def restricted(structure: Structure, names: Collection[str]) -> Structure | None:
    """The structure with some of its tensors only; containers that are left without any go too.

    Constants stay as long as what they stand in does.

    Returns:
        None where nothing is left.
    """
    if structure.kind in ("tensor", "constant"):
        return structure if structure.kind == "constant" or structure.name in names else None
    kept = [restricted(item, names) for item in structure.items]
    if any(structure.names()) and not any(item and any(item.names()) for item in kept):
        return None
    pairs = zip(_labels(structure), kept, strict=True)
    left = {label: item for label, item in pairs if item is not None}
    keys = tuple(left) if structure.kind == "dict" else ()
    return replace(structure, keys=keys, items=tuple(left.values()))


def to_json(structure: Structure) -> Any:
    """The structure as JSON data: {"tensor": name}, {"constant": value} or {kind: children}."""
    if structure.kind == "tensor":
        return {"tensor": structure.name}
    if structure.kind == "constant":
        return {"constant": structure.value}
    if structure.kind == "dict":
        pairs = zip(structure.keys, structure.items, strict=True)
        return {"dict": [[key, to_json(item)] for key, item in pairs]}
    return {structure.kind: [to_json(item) for item in structure.items]}


def from_json(data: Any, *, path: str) -> Structure:
    """A structure from JSON data.

    Raises:
        FormatError: the data is not a structure; the message names the place.
    """
    expected = "one of tensor, constant, dict, list, tuple"
    if not isinstance(data, dict) or len(data) != 1:
        raise FormatError(f"{path}: expected {expected}")
    ((kind, body),) = data.items()
    if kind == "tensor" and isinstance(body, str):
        return Structure("tensor", name=body)
    if kind == "constant" and (body is None or isinstance(body, (bool, int, float, str))):
        return Structure("constant", value=body)
    if kind in ("list", "tuple") and isinstance(body, list):
        items = tuple(from_json(item, path=f"{path}.{i}") for i, item in enumerate(body))
        return Structure(kind, items=items)
    if kind == "dict" and isinstance(body, list) and all(_is_pair(pair) for pair in body):
        keys = tuple(pair[0] for pair in body)
        items = tuple(from_json(item, path=f"{path}.{key}") for key, item in body)
        return Structure("dict", keys=keys, items=items)
    raise FormatError(
        f"{path}: expected one of tensor, constant, dict, list, tuple, found {kind!r}"
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
