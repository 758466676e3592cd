"""Checkpoints of other people: their files, and whose tensor is whose by rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from torch import nn

from nestedge.errors import FormatError, UsageError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network")
_PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_RENAMED = {"mobile_inverted_conv": "conv"}


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name; nothing in the file is run.

    A state dict that stands under "state_dict", "model" or the like is taken out of there.

    Args:
        path: a .safetensors, or what torch.save wrote (.pt, .pth, .bin, .ckpt), read with
            `weights_only=True`.

    Raises:
        UsageError: there is no such file, or its ending is another one.
        FormatError: it is damaged, holds something else than tensors, or would run code.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return read_safetensors(path.read_bytes())
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise FormatError(f"{path}: not safetensors: {error}") from error
    if path.suffix not in _PICKLED:
        endings = [".safetensors", *_PICKLED]
        raise UsageError(f"{path}: expected an ending of {endings}, found {path.suffix!r}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Whatever the bytes of a pickle may bring about.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(
            f"{path}: torch.load(weights_only=True) refuses it: {reason}; "
            "save its state_dict() alone"
        ) from error
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, Mapping):
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return {str(name): tensor for name, tensor in content.items()}
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(inner) == 1:
            return _state_dict(inner[0], path)
        found: object = sorted(map(str, content))[:6]
    else:
        found = type(content).__name__
    raise FormatError(
        f"{path}: expected tensors by name, or one such dict under {list(_WRAPPERS)}, found {found}"
    )


def simplified(name: str) -> str:
    """A tensor's name without what wrappers add to it.

    That is "module." of data-parallel training, a component that repeats the one before it
    ("bn.bn", "conv.conv" of once-for-all's elastic layers), and once-for-all's old name of a
    block's convolutions.

    >>> simplified("module.blocks.1.mobile_inverted_conv.depth_conv.bn.bn.weight")
    'blocks.1.conv.depth_conv.bn.weight'
    """
    parts: list[str] = []
    for part in name.removeprefix("module.").split("."):
        part = _RENAMED.get(part, part)
        # Numbers are places in a list: "0.0" is another place than "0".
        if not parts or part != parts[-1] or part.isdigit():
            parts.append(part)
    return ".".join(parts)


def match_names(wanted: Iterable[str], given: Collection[str]) -> dict[str, str]:
    """For names of a model those of a checkpoint: the same, or the same once simplified.

    Returns:
        Without the names that match none.

    Raises:
        UsageError: a name matches several of the checkpoint's, or two match the same one.
    """
    wanted = list(wanted)
    found = {name: name for name in wanted if name in given}
    free: dict[str, list[str]] = {}
    for name in given:
        if name not in found:
            free.setdefault(simplified(name), []).append(name)
    for name in wanted:
        if name in found or simplified(name) not in free:
            continue
        candidates = free[simplified(name)]
        if len(candidates) > 1:
            raise UsageError(
                f"{name!r} could be any of {candidates} of the checkpoint; rename the others"
            )
        found[name] = candidates[0]
    taken: dict[str, str] = {}
    for name, source in found.items():
        if source in taken:
            raise UsageError(
                f"{taken[source]!r} and {name!r} both match {source!r} of the checkpoint; "
                "rename one in the checkpoint"
            )
        taken[source] = name
    return found


def match_tied(
    wanted: Iterable[str], given: Collection[str], aliases: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """As `match_names`, where a tied tensor may stand in the checkpoint under any of its names.

    Args:
        wanted: names of a model.
        given: names of a checkpoint.
        aliases: other names of tied tensors, to the name among `wanted`.

    Returns:
        For names of the model those of the checkpoint, and the names of the checkpoint that
        match none.
    """
    found = match_names(wanted, given)
    others = match_names(aliases, given)
    read = {*found.values(), *others.values()}
    for alias, source in others.items():
        found.setdefault(aliases[alias], source)
    return found, [name for name in given if name not in read]


def check_complete(missing: Iterable[str], unread: Iterable[str]) -> None:
    """Refuses a checkpoint that is not the model's.

    Args:
        missing: names of the model that the checkpoint lacks; counters of batches are not missed.
        unread: names of the checkpoint that nothing in the model is called.

    Raises:
        UsageError: there are such names.
    """
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unread = [name for name in unread if not name.endswith("num_batches_tracked")]
    parts = []
    if missing:
        parts.append(f"it lacks {some(missing)}")
    if unread:
        parts.append(f"the model has nothing called {some(unread)}")
    if parts:
        raise UsageError(f"the checkpoint does not fit the model: {', and '.join(parts)}")


def load_plain(model: nn.Module, checkpoint: Mapping[str, torch.Tensor]) -> None:
    """Writes a checkpoint's tensors over those of a module, by `match_names`.

    Raises:
        UsageError: a name of the module or of the checkpoint has no partner, or shapes differ.
    """
    targets = model.state_dict()
    sources = match_names(targets, checkpoint)
    read = set(sources.values())
    # A tied tensor may be stored once.
    written = {targets[name].data_ptr() for name in sources}
    check_complete(
        [
            name
            for name in targets
            if name not in sources and targets[name].data_ptr() not in written
        ],
        [name for name in checkpoint if name not in read],
    )
    for name, source in sources.items():
        write(targets[name], checkpoint[source], name=name, source=source)


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(map(repr, listed[:limit])) + more


def write(target: torch.Tensor, value: torch.Tensor, *, name: str, source: str) -> None:
    """Writes a checkpoint's tensor over a model's.

    Raises:
        UsageError: their shapes differ.
    """
    if target.shape != value.shape:
        raise UsageError(
            f"{name!r}: expected shape {list(target.shape)}, found {list(value.shape)} in "
            f"{source!r} of the checkpoint"
        )
    with torch.no_grad():
        target.copy_(value)


def exact_units(share: float | int, size: int, *, where: str) -> int:
    """How many units a width is, where rounding would make it another network.

    Raises:
        UsageError: the width is out of range, or no whole number of units.
    """
    units = share if isinstance(share, int) else share * size
    if isinstance(share, bool) or not 0 < units <= size:
        raise UsageError(f"{where}: expected a width of 1 to {size} units, found {share!r}")
    if abs(units - round(units)) > 1e-6:
        raise UsageError(
            f"{where}: {share!r} of {size} units is no whole number; give the number of units"
        )
    return round(units)
