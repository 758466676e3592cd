"""The Python of the README and of docs/levels.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _run(document: str) -> dict[str, object]:
    """Run the Python of a document, one piece after another, and give what it defines."""
    text = (ROOT / document).read_text()
    names: dict[str, object] = {"__name__": document}
    pieces = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert pieces, document
    for code in pieces:
        exec(compile(code, document, "exec"), names)
    return names


def test_the_readmes_python_nests_trains_saves_and_materialises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = _run("README.md")
    assert (tmp_path / "net.nest").is_file()
    small = names["program"].module()(names["x"])  # type: ignore[attr-defined]
    assert small.shape == (16, 10)


def test_the_levels_of_the_documentation_have_the_sizes_and_outputs_that_it_says() -> None:
    names = _run("docs/levels.md")
    assert names["given"] == {
        "core": {"coarse": (4, 20)},
        "half": {"coarse": (4, 20), "fine": (4, 100)},
        "full": {"coarse": (4, 20), "fine": (4, 100)},
        "average": {"fine": (4, 100)},
        "learned": {"fine": (4, 100)},
    }
    assert names["sizes"] == {
        "full": (64, 8, 3, 3),
        "kernel": (64, 8, 3, 3),
        "groups": (32, 8, 3, 3),
        "mixed": (8, 8, 3, 3),
    }
