from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nestedge
from nestedge.errors import MissingDependencyError

_ROOT = Path(__file__).parents[1]


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_nestedge_imports_no_torch() -> None:
    code = "import sys, nestedge as n; dir(n); n.__version__; print('torch' in sys.modules)"
    assert _python(code) == "False"


@pytest.mark.parametrize("name", ["Preprocessing", "Level"])
def test_what_a_device_needs_imports_no_torch(name: str) -> None:
    code = f"import sys, nestedge; nestedge.{name}; print('torch' in sys.modules)"
    assert _python(code) == "False"


@pytest.mark.parametrize("name", sorted({*nestedge.__all__} - {"__version__"}))
def test_every_name_is_what_its_module_has(name: str) -> None:
    found = getattr(nestedge, name)
    assert found.__name__ == name
    assert found.__module__.startswith("nestedge.")
    assert name in dir(nestedge)


def test_the_names_for_type_checkers_are_the_lazy_ones() -> None:
    assert {*nestedge._HOMES, "__version__"} == {*nestedge.__all__}


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; did you mean 'load'\?$"):
        getattr(nestedge, "lode")  # noqa: B009


def test_without_torch_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_torch(home: str) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(nestedge, "import_module", without_torch)
    expected = r"^nestedge\.nest needs torch: pip install 'nestedge\[convert\]'$"
    with pytest.raises(MissingDependencyError, match=expected):
        getattr(nestedge, "nest")  # noqa: B009


def test_another_missing_module_is_not_taken_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(home: str) -> object:
        raise ModuleNotFoundError("No module named 'x'", name="x")

    monkeypatch.setattr(nestedge, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="'x'"):
        getattr(nestedge, "nest")  # noqa: B009


def test_the_version_is_that_of_the_package() -> None:
    lines = (_ROOT / "pyproject.toml").read_text().splitlines()
    assert f'version = "{nestedge.__version__}"' in lines
