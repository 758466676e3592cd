from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nestedge.errors import FormatError, MissingDependencyError
from nestedge.plugins import load_runtime, reads
from tests.fakes import declare_plugins
from tests.nestedge_tflite.handmade import WEIGHT, write_model

MODULE = "nestedge_tflite.legacy"


@pytest.fixture
def declared(site: Path) -> Iterator[None]:
    """The runtime under a name of its own, as it may be declared under "tflite-legacy" too."""
    entries = {"old": f"{MODULE}:LegacyRuntime"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries, extras=["old"])
    _forget()
    yield
    _forget()


@pytest.fixture
def framework(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tflite-runtime whose interpreter is LiteRT's: they have the same interface."""
    monkeypatch.setattr(np, "__version__", "1.26.4")
    package = site / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text("from ai_edge_litert.interpreter import Interpreter\n")
    info = site / "tflite_runtime-2.14.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")


def _forget() -> None:
    """The next import is a first one."""
    for name in [MODULE, "tflite_runtime", "tflite_runtime.interpreter"]:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("declared", "framework")
def test_it_runs_the_files_of_tflite(tmp_path: Path) -> None:
    runtime = load_runtime("old")
    assert reads(runtime) == "tflite"
    assert runtime.version() == "tflite-runtime 2.14.0"
    x = np.array([[1, -2]], np.float32)
    found = runtime.open(write_model(tmp_path / "model.tflite")).run({"x": x})
    np.testing.assert_array_equal(found["y"], x @ WEIGHT.T)


@pytest.mark.usefixtures("declared", "framework")
def test_a_refusal_names_the_framework_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(FormatError, match=r"model\.tflite: tflite-runtime refuses it: "):
        load_runtime("old").open(path)


@pytest.mark.usefixtures("declared", "framework")
@pytest.mark.parametrize(
    ("activations", "precision"), [("float32", "int8-dynamic"), ("int16", "int16x8")]
)
def test_a_file_that_it_would_compute_wrongly_is_refused(
    activations: str, precision: str, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "model.tflite", weights="int8", activations=activations)
    with pytest.raises(
        FormatError,
        match=rf"model\.tflite: tflite-runtime computes {precision} wrongly: run it by ai-edge",
    ):
        load_runtime("old").open(path)


@pytest.mark.usefixtures("declared", "framework")
def test_weights_of_8_bits_between_activations_of_8_bits_are_run(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.tflite", weights="int8", activations="int8")
    x = np.array([[1, -2]], np.float32)
    np.testing.assert_array_equal(load_runtime("old").open(path).run({"x": x})["y"], x @ WEIGHT.T)


@pytest.mark.usefixtures("declared", "framework")
def test_numpy_2_is_refused_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.2.6")
    with pytest.raises(
        MissingDependencyError,
        match=r"built for numpy 1, found numpy 2\.2\.6: pip install 'nestedge\[tflite-legacy\]'",
    ):
        load_runtime("old")


@pytest.mark.usefixtures("declared")
def test_a_python_that_it_has_no_build_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    with pytest.raises(MissingDependencyError, match=r"no build for Python 3\.12 or later"):
        load_runtime("old")


@pytest.mark.usefixtures("declared")
def test_what_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    with pytest.raises(MissingDependencyError, match=r"needs tflite_runtime: pip install 'fake0"):
        load_runtime("old")
