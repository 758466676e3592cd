from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nestedge import plugins
from nestedge.errors import MissingDependencyError, NestedgeError, UsageError
from nestedge.plugins import TensorInfo, check_inputs
from tests.fakes import DESCRIPTION, FakeRuntime, declare_plugins, fake_artifact

RUNTIMES = "nestedge.runtimes"
CONVERTERS = "nestedge.converters"


def test_a_declared_runtime_is_listed_and_loaded(fake_runtime: Path) -> None:
    assert "fake" in plugins.runtimes()
    assert isinstance(plugins.load_runtime("fake"), FakeRuntime)


def test_a_declared_converter_is_listed_and_loaded(site: Path) -> None:
    # Any class without arguments will do here: what a converter does is not asked.
    declare_plugins(site, group=CONVERTERS, entries={"fake": "tests.fakes:FakeRuntime"})
    assert "fake" in plugins.converters()
    assert isinstance(plugins.load_converter("fake"), FakeRuntime)


class ElderRuntime(FakeRuntime):
    """A runtime plug-in that opens the fake runtime's models."""

    name = "elder"
    reads = "fake"


def test_a_runtime_reads_its_own_files_or_those_that_it_says() -> None:
    assert plugins.reads(FakeRuntime()) == "fake"
    assert plugins.reads(ElderRuntime()) == "fake"


def test_an_unknown_runtime_is_refused_with_a_suggestion(fake_runtime: Path) -> None:
    with pytest.raises(UsageError, match=r"no runtime 'fakke'; .*did you mean 'fake'\?"):
        plugins.load_runtime("fakke")


def test_a_runtime_runs_on_the_provider_that_is_asked_for(provider_runtime: Path) -> None:
    assert plugins.load_runtime("fake").version() == "fake 1.0"
    assert plugins.load_runtime("fake", provider="npu").version() == "fake 1.0 (npu)"
    with pytest.raises(UsageError, match=r"no provider 'gpu' here; it has \['dead', 'npu'\]"):
        plugins.load_runtime("fake", provider="gpu")


def test_a_runtime_without_providers_takes_none(fake_runtime: Path) -> None:
    with pytest.raises(UsageError, match=r"^runtime 'fake' takes no provider, and 'cuda' was .*:"):
        plugins.load_runtime("fake", provider="cuda")


def test_artifacts_are_readable_by_their_runtime_or_by_what_checks_them(tmp_path: Path) -> None:
    own = fake_artifact(tmp_path)
    compiled = fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    other = fake_artifact(tmp_path, replace(DESCRIPTION, runtime="x", checked_by="x"))
    assert plugins.readable([own, other, compiled], FakeRuntime()) == [own, compiled]
    with pytest.raises(UsageError, match=r"'fake' opens artifacts of 'fake'; these are of \['x'\]"):
        plugins.readable([other], FakeRuntime())


def _plugin(site: Path, name: str, text: str) -> str:
    (site / f"{name}.py").write_text(text)
    return f"{name}:Plugin"


def test_a_missing_framework_is_named_with_the_line_to_type(site: Path) -> None:
    value = _plugin(site, "needs_much", "import no_such_framework.sub\n")
    entries = {"odd": value, "onnx-like": value}
    declare_plugins(site, group=RUNTIMES, entries=entries, extras=["onnx-like"])
    with pytest.raises(
        MissingDependencyError,
        match=r"^runtime 'onnx-like' needs no_such_framework: pip install 'fake0\[onnx-like\]'$",
    ):
        plugins.load_runtime("onnx-like")
    # A plug-in whose distribution has no extra for it is helped by the package itself.
    with pytest.raises(MissingDependencyError, match=r"pip install 'no_such_framework'$"):
        plugins.load_runtime("odd")


def test_converters_share_the_extra_convert(site: Path) -> None:
    value = _plugin(site, "needs_torch", "import no_such_framework\n")
    declare_plugins(site, group=CONVERTERS, entries={"x": value}, extras=["convert", "x"])
    with pytest.raises(MissingDependencyError, match=r"pip install 'fake0\[convert\]'$"):
        plugins.load_converter("x")


def test_a_converter_with_a_framework_of_its_own_has_an_extra_of_its_own(site: Path) -> None:
    value = _plugin(site, "needs_own", "import no_such_framework\n")
    extras = ["convert", "own"]
    declare_plugins(site, group=CONVERTERS, entries={"own": value}, extras=extras)
    (metadata,) = site.glob("*.dist-info/METADATA")
    requirement = 'Requires-Dist: no_such_framework>=1; extra == "own"\n'
    metadata.write_text(metadata.read_text() + requirement)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fake0\[own\]'$"):
        plugins.load_converter("own")


def test_a_plugin_whose_own_module_is_gone_asks_for_its_package(site: Path) -> None:
    declare_plugins(site, group=RUNTIMES, entries={"gone": "nestedge_gone.runtime:Plugin"})
    with pytest.raises(MissingDependencyError, match=r"nestedge_gone is missing: reinstall fake0$"):
        plugins.load_runtime("gone")


def test_a_declared_class_that_is_not_there_is_named(site: Path) -> None:
    entry = "tests.fakes:NoSuchRuntime"
    declare_plugins(site, group="nestedge.runtimes", entries={"typo": entry})
    with pytest.raises(NestedgeError, match=r"'typo' is declared as tests\.fakes:NoSuchRuntime: "):
        plugins.load_runtime("typo")


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_a_framework_that_does_not_load_says_why(site: Path, error: str) -> None:
    name = f"broken_{error.lower()}"
    value = _plugin(site, name, f"raise {error}('libx.so: wrong architecture')\n")
    declare_plugins(site, group=RUNTIMES, entries={"broken": value})
    with pytest.raises(
        MissingDependencyError, match=r"^runtime 'broken' cannot be imported: libx\.so: wrong arch"
    ):
        plugins.load_runtime("broken")


def test_a_name_declared_twice_is_refused(site: Path) -> None:
    declare_plugins(site, group=RUNTIMES, entries={"fake": "tests.fakes:FakeRuntime"})
    declare_plugins(site, group=RUNTIMES, entries={"fake": "tests.fakes:FakeSession"})
    with pytest.raises(NestedgeError, match=r"runtime 'fake' is declared twice.*FakeSession"):
        plugins.runtimes()


INFOS = (TensorInfo("x", (1, 2), "float32"), TensorInfo("y", (-1,), "int64"))
X, Y = np.zeros((1, 2), np.float32), np.zeros(7, np.int64)


def test_inputs_that_fit_pass() -> None:
    check_inputs(INFOS, {"y": Y, "x": X})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X}, r"input 'y' is missing; given are \['x'\]"),
        ({"x": X, "y": Y, "xx": X}, r"no input 'xx'; inputs are \['x', 'y'\]; did you mean 'x'\?"),
        ({"x": X.T, "y": Y}, r"input 'x': expected shape \(1, 2\) and .*found \(2, 1\)"),
        ({"x": X[0], "y": Y}, r"found \(2,\) and float32"),
        ({"x": X.astype(np.float64), "y": Y}, "dtype float32, found .* and float64"),
    ],
    ids=["missing", "unknown", "shape", "rank", "dtype"],
)
def test_inputs_that_do_not_fit_are_refused(
    given: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_inputs(INFOS, given)
