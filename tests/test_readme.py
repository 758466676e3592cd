"""The Python of the README and of docs/levels.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _run(document: str) -> dict[str, object]:
    """Run the one piece of Python of a document, and give what it defines."""
    text = (ROOT / document).read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
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


def test_the_levels_of_the_documentation_have_the_sizes_that_it_says() -> None:
    assert _run("docs/levels.md")["sizes"] == {
        "full": (64, 8, 3, 3),
        "kernel": (64, 8, 3, 3),
        "groups": (32, 8, 3, 3),
        "mixed": (8, 8, 3, 3),
    }
