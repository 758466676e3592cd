"""Which layers of a TensorRT engine run on a DLA, by what trtexec prints while it builds it.

The builder lists both kinds at its level of information, with the names of the ONNX nodes in each
layer. A DLA's piece is one layer, named by the first and the last node in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nestedge.errors import FormatError, UsageError
from nestedge.placement.attribution import Entry, attributed, listed
from nestedge.placement.description import Operator, Placement

_HEADER = "Layers Running on DLA"
_SECOND_HEADER = "Layers Running on GPU"
_LAYER = re.compile(r"\[(?P<device>Dla|Gpu)Layer\] (?:(?P<kind>[A-Z][A-Z0-9_]+): )?(?P<text>.*\S)")
# What trtexec and the builder say where a DLA was asked for, whether or not a layer got there.
_ASKED = re.compile(r"--useDLACore=\d|DLACore: \d|on DLA\. Switching|Default DLA is enabled")


def is_log(text: str) -> bool:
    """Whether a text has the builder's list of layers, or the start of it."""
    return _HEADER in text


def read(
    text: str, operators: Sequence[Operator], *, source: str, accelerator: str | None
) -> Placement:
    """Where the layers of an engine run: "DLA" or "GPU".

    Without `accelerator` that is the DLA if the log shows that one was asked for.

    Raises:
        FormatError: the log ends within the list.
        UsageError: the accelerator is another.
    """
    if accelerator not in (None, "DLA", "GPU"):
        raise UsageError(f"{source}: TensorRT runs on 'DLA' and 'GPU'; asked for {accelerator!r}")
    entries = _entries(text, source=source)
    pieces = sum(entry.where == "DLA" for entry in entries)
    if accelerator is None:
        accelerator = "DLA" if pieces or _ASKED.search(text) else "GPU"
    # Where everything runs on one of the two, names need not be looked for.
    wheres = {entry.where for entry in entries}
    rest = wheres.pop() if len(wheres) == 1 else None
    placed = attributed(operators, entries, rest=rest) if operators else None
    return Placement(
        accelerator,
        listed(entries) if placed is None else placed,
        pieces if accelerator == "DLA" else None,
        source,
    )


def _entries(text: str, *, source: str) -> list[Entry]:
    """The layers of the last list in a log; one that builds several engines has several."""
    lines = text[text.rindex(_HEADER) :].splitlines(keepends=True)[1:]
    # A line without an end may be cut off.
    lines = [line for line in lines if line.endswith("\n")]
    entries = []
    is_second = False
    for line in lines:
        match = _LAYER.search(line)
        if match is not None:
            entries.append(Entry(match["kind"] or "", match["text"], match["device"].upper()))
        elif _SECOND_HEADER in line and not is_second:
            is_second = True
        elif is_second:
            return entries
        else:
            break
    # A layer that is cut off would count for the other device.
    raise FormatError(
        f"{source}: ends within the list that begins with '{_HEADER}'; expected that of the GPU, "
        "and a line after it: give the whole log"
    )
