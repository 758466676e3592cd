"""Masks and levels from files, and a model from a name: what a command line can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nestedge.convert import reason_of
from nestedge.documents import Value, read_arrays, read_json
from nestedge.errors import UsageError
from nestedge.importing.checkpoint import read_checkpoint
from nestedge.importing.masks import SPARSE
from nestedge.importing.supernet import Subnet
from nestedge.levels import Share

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")
}


def read_mask_file(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The masks of levels: each is stored as "level/tensor", or as "tensor" for a single level.

    The levels come in the order of their names.

    Args:
        path: a .npz, or a file that `read_checkpoint` reads.

    Raises:
        UsageError: there is no such file, or only some names have a level.
        FormatError: it cannot be read.
    """
    if path.suffix == ".npz":
        arrays = {name: torch.as_tensor(array) for name, array in read_arrays(path).items()}
    else:
        arrays = read_checkpoint(path)
    found: dict[str, dict[str, torch.Tensor]] = {}
    # A .safetensors has no order that its writer chose.
    for key, mask in sorted(arrays.items()):
        level, separator, tensor = key.partition("/")
        if not separator:
            level, tensor = SPARSE, key
        found.setdefault(level, {})[tensor] = mask
    if len(found) > 1 and any("/" not in key for key in arrays):
        single = next(key for key in arrays if "/" not in key)
        raise UsageError(f"{path}: expected 'level/tensor' for all masks, found {single!r}")
    return found


def read_widths(path: Path) -> dict[str, Share | list[Share]]:
    """For every level a width, or a list of widths: `{"small": 0.25, "mixed": [64, 0.5]}`.

    A number with a point is a share, one without a number of units.

    Raises:
        UsageError: there is no such file.
        FormatError: it says something else.
    """
    members = read_json(path).members()
    return {
        level: [_share(v) for v in value.elements()]
        if isinstance(value.data, list)
        else _share(value)
        for level, value in members.items()
    }


def single_widths(widths: Mapping[str, Share | Sequence[Share]]) -> dict[str, float]:
    """The widths of levels that are one multiplier each.

    Raises:
        UsageError: a level has a list, or a number of units.
    """
    found = {}
    for level, width in widths.items():
        if not isinstance(width, float):
            raise UsageError(f"level {level!r}: expected a multiplier as 0.5 or 1.0, found {width}")
        found[level] = width
    return found


def read_subnets(path: Path) -> dict[str, Subnet]:
    """For every level a subnet as once-for-all writes it: `{"small": {"d": 2, "e": 3, "ks": 5}}`.

    Each value is one number or a list; "ks" may be left out.

    Raises:
        UsageError: there is no such file.
        FormatError: it says something else.
    """
    return {level: _subnet(value) for level, value in read_json(path).members().items()}


def _subnet(value: Value) -> Subnet:
    fields = ("d", "e", "ks") if "ks" in value.members() else ("d", "e")
    depth, expand, *kernel = value.fields(*fields)
    return Subnet(
        _integers(depth),
        [v.number() for v in expand.elements()]
        if isinstance(expand.data, list)
        else expand.number(),
        _integers(kernel[0]) if kernel else None,
    )


def _integers(value: Value) -> int | list[int]:
    if isinstance(value.data, list):
        return [item.integer(minimum=1) for item in value.elements()]
    return value.integer(minimum=1)


def _share(value: Value) -> Share:
    return value.integer(minimum=1) if isinstance(value.data, int) else value.number()


def build_model(factory: str) -> nn.Module:
    """The module that a function makes; this imports and runs the code that is named.

    Args:
        factory: "package.module:function"; it is called without arguments.

    Raises:
        UsageError: there is no such function, it fails, or it gives something else.
    """
    module, separator, name = factory.partition(":")
    if not (module and separator and name):
        raise UsageError(f"expected package.module:function, found {factory!r}")
    try:
        function = getattr(import_module(module), name, None)
        if not callable(function):
            raise UsageError(f"{module!r} has no function {name!r}")
        model = function()
    except UsageError:
        raise
    except Exception as error:
        # It is anybody's code.
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise UsageError(f"{factory}: its code failed: {reason}") from error
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise UsageError(f"{factory}: expected a torch.nn.Module, found {kind}")
    return model


def example_input(text: str) -> torch.Tensor:
    """An input of a shape and dtype: the same numbers at every call, zeros unless floating point.

    Raises:
        UsageError: it is no shape.

    >>> example_input("1,3,8,8").shape, example_input("1,16:int64").dtype
    (torch.Size([1, 3, 8, 8]), torch.int64)
    """
    sizes, _, dtype = text.partition(":")
    shape = [int(size) for size in sizes.split(",") if size.strip().isdecimal()]
    if len(shape) != len(sizes.split(",")) or 0 in shape or (dtype or "float32") not in _DTYPES:
        raise UsageError(
            f"expected an example as 1,3,32,32 or 1,16:int64 of {list(_DTYPES)}, found {text!r}"
        )
    kind: Any = _DTYPES[dtype or "float32"]
    if not kind.is_floating_point:
        return torch.zeros(shape, dtype=kind)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(kind)
