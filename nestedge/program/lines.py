"""Which line of the user's code an operator came from, as a .nest keeps it: for messages alone.

Only the name of the file and the number of the line: neither the folder, which is this machine's,
nor the code, which is the user's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from nestedge.documents import Value
from nestedge.errors import FormatError
from nestedge.program.graph import Program

_LINE = re.compile(r"(?:.*?[/\\])?([^/\\]+?:\d+)(?:: |$)")


def short_line(line: str) -> str:
    """A line without its folder and its code.

    >>> short_line("/home/me/net.py:12: x = self.head(x)"), short_line("net.py:12"), short_line("")
    ('net.py:12', 'net.py:12', '')
    """
    found = _LINE.match(line)
    return found[1] if found else ""


def without_folder(line: str) -> str:
    """A line with its code, but without its folder.

    >>> without_folder("/home/me/net.py:12: y = x[1:2] / z")
    'net.py:12: y = x[1:2] / z'
    """
    found = _LINE.match(line)
    return line[found.start(1) :] if found else ""


def lines_to_json(program: Program) -> list[list[Any]]:
    """Every line with the numbers of the nodes that came from it, in the order of the first."""
    found: dict[str, list[int]] = {}
    for index, node in enumerate(program.nodes):
        line = short_line(node.line)
        if line:
            found.setdefault(line, []).append(index)
    return [[line, indices] for line, indices in found.items()]


def with_lines(program: Program, value: Value) -> Program:
    """A program with the lines that `lines_to_json` made.

    Raises:
        FormatError: a line is not a name and a number, or the program has no such node.
    """
    nodes = list(program.nodes)
    for item in value.elements():
        pair = item.elements()
        if len(pair) != 2 or short_line(pair[0].string()) != pair[0].string():
            raise item.error("a line such as 'net.py:12' and the nodes from it")
        for place in pair[1].elements():
            index = place.integer(minimum=0)
            if index >= len(nodes) or nodes[index].line:
                raise FormatError(f"{place.where}: no node {index}, or one that has a line")
            nodes[index] = replace(nodes[index], line=pair[0].string())
    return replace(program, nodes=tuple(nodes))
