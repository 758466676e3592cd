"""Where in the user's code something stands, and errors that say so."""

from __future__ import annotations

import re
import traceback
from itertools import dropwhile
from pathlib import Path

import torch
from torch.fx import Node as FxNode

from nestedge.errors import CaptureError
from nestedge.reasons import capture_error

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parents[1])


class InPlaceError(CaptureError):
    """A part of a value is changed in place, so that the whole has to be made anew."""


def user_line(text: str) -> str:
    """Where in the user's code, from a traceback or an FX stack trace: "net.py:12: code"."""
    places = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', text)
    own = [place for place in places if not re.search(r"[/\\]torch[/\\]", place[0])]
    if not own:
        caused = re.search(r"Caused by: .*?\((\S+:\d+) in ", text)
        return caused[1] if caused else ""
    file, line, code = own[-1]
    return f"{file}:{line}: {code.strip()}"


def raised_at(error: BaseException) -> str:
    """Where in the user's code an error passed through: "net.py:12: code"."""
    frames = traceback.extract_tb(error.__traceback__)
    # What is outside of torch called nestedge.
    inside = dropwhile(lambda frame: not frame.filename.startswith(_TORCH), frames)
    own = [f for f in inside if not f.filename.startswith((_TORCH, _OURS, "<"))]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""


def place_of(fx: FxNode) -> str:
    """Where in the user's code a node of torch.export's graph came from: "net.py:12: code"."""
    return user_line(str(fx.meta.get("stack_trace", "")))


def no_rule(fx: FxNode, name: str) -> CaptureError:
    """The error that an operator is not on the allow-list."""
    said, place = f"no rule for operator {name}", place_of(fx)
    values = [fx.meta.get("val"), *(node.meta.get("val") for node in fx.all_input_nodes)]
    if any(isinstance(value, torch.Tensor) and value.is_complex() for value in values):
        return capture_error("complex-numbers", said, operator=name, source=place)
    return capture_error("unsupported-operator", said, operator=name, source=place)


def dynamic_shape(fx: FxNode, name: str) -> CaptureError:
    """The error that values decide the shape of what an operator gives."""
    return capture_error(
        "dynamic-shape",
        "the network has a shape that depends on data",
        operator=name,
        source=place_of(fx),
    )
