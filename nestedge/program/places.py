"""Where in the user's code something stands, for messages."""

from __future__ import annotations

import re

from torch.fx import Node as FxNode

from nestedge.errors import UsageError


class InPlaceError(UsageError):
    """A part of a value is changed in place, so that the whole has to be made anew."""


def user_line(text: str) -> str:
    """Where in the user's code, from a traceback or an FX stack trace: " (net.py:12: code)"."""
    places = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', text)
    own = [place for place in places if not re.search(r"[/\\]torch[/\\]", place[0])]
    if not own:
        caused = re.search(r"Caused by: .*?\((\S+:\d+) in ", text)
        return f" ({caused[1]})" if caused else ""
    file, line, code = own[-1]
    return f" ({file}:{line}: {code.strip()})"


def place_of(fx: FxNode) -> str:
    """Where in the user's code a node of torch.export's graph came from."""
    return user_line(str(fx.meta.get("stack_trace", "")))


def no_rule(fx: FxNode, name: str) -> str:
    """What to say of an operator that is not on the allow-list."""
    return (
        f"no rule for operator {name}{place_of(fx)}; write the line with other operators, or nest "
        "the part of the network without it"
    )


def data_dependent(place: str) -> str:
    """What to say of a shape or a branch that values decide."""
    return (
        f"the network has a shape or a branch that depends on data{place}; no level "
        "could be cut from it: compute it outside the network, or nest the part before it"
    )
