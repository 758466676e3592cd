"""Reads what tools on other machines print about where operators run: one door for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from nestedge.errors import FormatError
from nestedge.placement import delegate_log, provider_log, trtexec_log
from nestedge.placement.description import Operator, Placement

_KINDS = (
    (trtexec_log.is_log, trtexec_log.read),
    (provider_log.is_log, provider_log.read),
    (delegate_log.is_log, delegate_log.read),
)

EXPECTED = (
    "what trtexec prints while it builds an engine ('Layers Running on DLA'), onnxruntime at "
    "verbose level ('Node(s) placed on'), or benchmark_model and logcat of a TFLite delegate "
    "('node(s) with delegate')"
)


def read_log(
    text: str, operators: Sequence[Operator], *, source: str, accelerator: str | None = None
) -> Placement:
    """Where operators ran, by the log of trtexec, of onnxruntime, or of a TFLite delegate.

    Args:
        text: of the log; anything else may stand between the lines that count.
        operators: of the model file, in its order; without them the share is one of layers.
        source: how errors call the log.
        accelerator: which of several in the log is meant.

    Raises:
        FormatError: it is none of these logs, is truncated, or is of another model.
        UsageError: the accelerator is not in the log.
    """
    for is_log, read in _KINDS:
        if is_log(text):
            return read(text, operators, source=source, accelerator=accelerator)
    raise FormatError(f"{source}: expected {EXPECTED}; found nothing about where operators run")
