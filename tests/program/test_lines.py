from __future__ import annotations

from dataclasses import replace

import pytest

from nestedge.documents import Value
from nestedge.errors import FormatError
from nestedge.program.graph import Node, Program
from nestedge.program.lines import lines_to_json, short_line, with_lines
from nestedge.program.structure import Structure


def _program(*lines: str) -> Program:
    nodes = [
        Node("aten.relu.default", (), {}, (str(index),), line=line)
        for index, line in enumerate(lines)
    ]
    nothing = Structure("dict")
    return Program((), nothing, tuple(nodes), (), nothing, {})


@pytest.mark.parametrize(
    ("line", "short"),
    [
        ("/home/me/net.py:12: x = y[1:2]", "net.py:12"),
        (r"C:\me\net.py:12: return x", "net.py:12"),
        ("net.py:12", "net.py:12"),
        ("blocks.1", ""),
        ("", ""),
    ],
    ids=["posix", "windows", "short", "scope", "none"],
)
def test_a_line_keeps_neither_folder_nor_code(line: str, short: str) -> None:
    assert short_line(line) == short


def test_lines_come_back() -> None:
    program = _program("/a/net.py:3: x", "", "/a/net.py:4: y", "/a/net.py:3: x")
    data = lines_to_json(program)
    assert data == [["net.py:3", [0, 3]], ["net.py:4", [2]]]
    bare = replace(program, nodes=tuple(replace(node, line="") for node in program.nodes))
    again = with_lines(bare, Value(data, "program.json"))
    assert [node.line for node in again.nodes] == ["net.py:3", "", "net.py:4", "net.py:3"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([["net.py:3", [2]]], "no node 2"),
        ([["net.py:3", [0]], ["net.py:4", [0]]], "no node 0, or one that has a line"),
        ([["/home/me/net.py:3", [0]]], "a line such as"),
        ([["net.py:3"]], "a line such as"),
        ([["net.py:3", [-1]]], "program.json"),
        ({}, "an array"),
    ],
    ids=["too many", "twice", "a folder", "no pair", "negative", "no array"],
)
def test_lines_that_are_none_are_refused(data: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        with_lines(_program("", ""), Value(data, "program.json"))
