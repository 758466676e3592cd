"""A program from a torch.nn.Module, through torch.export."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.utils import _pytree as pytree

from nestedge.errors import CaptureError
from nestedge.program.examples import batch_size, is_batched
from nestedge.program.inlining import inline
from nestedge.program.places import InPlaceError, raised_at, user_line
from nestedge.program.reading import Capture, read
from nestedge.program.structure import describe, flatten
from nestedge.reasons import capture_error, code_of

_LOUD = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")
"""Loggers that print what is in the error too."""


def capture(
    model: nn.Module, args: Sequence[Any], *, kwargs: Mapping[str, Any] | None = None
) -> Capture:
    """Capture a module, in the mode that it is in, as a program.

    It takes any batch size where torch.export can prove that the module does, and else that of the
    examples.

    Args:
        model: any module that torch.export takes.
        args: example positional arguments; axis 0 of the first tensor is the batch, and of
            every other tensor whose axis 0 is as long. A batch of 1 is doubled for tracing.
        kwargs: example keyword arguments.

    Raises:
        CaptureError: torch.export cannot take the network, or it holds an operator that nestedge
            has no rule for; it has the operator and the line of the user's code.
    """
    bound = _bind(model, args, kwargs or {})
    try:
        exported, is_dynamic = _exported(model, bound)
    except Exception as error:
        # torch.export raises dozens of types of error, all of them about the user's network.
        raise _why_not(error) from error
    inline(exported)
    try:
        return read(exported, model, bound, is_dynamic=is_dynamic)
    except InPlaceError:
        # The same without views and without changes in place, in more and longer operations.
        with _quiet():
            functional = exported.run_decompositions({})
        return read(functional, model, bound, is_dynamic=is_dynamic)


def _exported(model: nn.Module, bound: dict[str, Any]) -> tuple[ExportedProgram, bool]:
    """The exported module, and whether it takes any batch size, or that of the examples only.

    Raises:
        UsageError: the first input has no batch.
        Exception: torch.export cannot take the network.
    """
    batch = batch_size(flatten(describe(bound, "", what="input"), bound))
    doubled = pytree.tree_map(lambda v: _doubled(v, batch), bound)
    shapes = pytree.tree_map(lambda v: _dynamic(v, max(2, batch)), doubled)
    with _quiet():
        try:
            return export(model, (), doubled, dynamic_shapes=shapes, strict=False), True
        except Exception as error:
            if "Constraints violated (batch)" not in str(error):
                raise
        # A proof about all batch sizes failed, as it does for a part of two batches joined to one.
        return export(model, (), bound, strict=False), False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch.export from printing graphs: what went wrong is in the error it raises."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _bind(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(model.forward)
    starred = [p.name for p in signature.parameters.values() if p.kind in (2, 4)]
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        said = f"example inputs do not fit forward{signature}: {error}"
        raise capture_error("bad-inputs", said) from error
    if any(name in bound.arguments for name in starred):
        said = f"forward{signature} takes *args or **kwargs, which have no names"
        raise capture_error("bad-inputs", said)
    return dict(bound.arguments)


def _doubled(value: Any, batch: int) -> Any:
    # torch.export would make a batch of 1 a constant of the network.
    if batch == 1 and is_batched(value, batch):
        return torch.cat([value, value])
    return value


def _dynamic(value: Any, batch: int) -> dict[int, Dim] | None:
    return {0: Dim("batch", min=1)} if is_batched(value, batch) else None


def _why_not(error: Exception) -> CaptureError:
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    place = user_line(text) or raised_at(error)
    if "data-dependent" in text:
        said = "the network has a shape or a branch that depends on data"
        return capture_error("data-dependent", said, source=place)
    code = code_of(f"{type(error).__name__}: {text}", otherwise="not-exportable")
    return capture_error(code, f"torch.export cannot take the network: {first[:300]}", source=place)
