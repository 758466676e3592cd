from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from tests.fakes import declare_plugins


def _run(*args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args])


def test_what_works_and_what_is_missing_are_told(site: Path, fake_runtime: Path) -> None:
    (site / "lacking.py").write_text("import no_such_framework\n")
    entries = {"lacking": "lacking:Plugin"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries, extras=["lacking"])
    result = _run()
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "runtime fake works fake 1.0" in lines
    needs = "runtime 'lacking' needs no_such_framework: pip install 'fake1[lacking]'"
    assert f"runtime lacking missing {needs}" in lines
    assert any(line.startswith("images works pillow ") for line in lines)


def test_converters_are_told_apart_from_runtimes(site: Path) -> None:
    # What a converter does is not asked here: any class without arguments will do.
    (site / "lacking.py").write_text("import no_such_framework\n")
    entries = {"good": "tests.fakes:FakeRuntime", "bad": "lacking:Plugin"}
    declare_plugins(site, group="nestedge.converters", entries=entries, extras=["convert"])
    parts = {part["part"]: part for part in json.loads(_run("--json").stdout)["parts"]}
    assert parts["converter good"]["works"] is True
    assert parts["converter bad"]["detail"] == (
        "converter 'bad' needs no_such_framework: pip install 'fake0[convert]'"
    )


def test_what_a_converter_uses_is_told(site: Path) -> None:
    (site / "using.py").write_text(
        "class Here:\n"
        "    packages = ('numpy', 'no-such-package')\n"
        "    runtime = checked_by = 'onnx'\n"
        "    def version(self):\n"
        "        return 'a program 2.0'\n"
        "class OnDevice:\n"
        "    packages = ()\n"
        "    runtime, checked_by = 'device', 'onnx'\n"
    )
    entries = {"here": "using:Here", "on-device": "using:OnDevice"}
    declare_plugins(site, group="nestedge.converters", entries=entries)
    parts = {part["part"]: part for part in json.loads(_run("--json").stdout)["parts"]}
    packages = f"numpy {version('numpy')}, no-such-package missing"
    assert parts["converter here"]["detail"] == f"{packages}, a program 2.0"
    assert parts["converter on-device"]["detail"] == "the engine is built on the device"


@pytest.mark.parametrize(
    ("raised", "detail"),
    [
        ("nestedge.errors.NestedgeError('pipx install it')", "pipx install it"),
        ("ZeroDivisionError('one\\ntwo')", "ZeroDivisionError: one"),
        ("ZeroDivisionError", "ZeroDivisionError: "),
    ],
    ids=["an error of ours", "an error of theirs", "an error without a message"],
)
@pytest.mark.parametrize("noun", ["runtime", "converter"])
def test_a_plug_in_that_breaks_is_missing_and_no_more(
    noun: str, raised: str, detail: str, site: Path
) -> None:
    (site / "broken.py").write_text(
        f"import nestedge.errors\nclass Plugin:\n    def version(self):\n        raise {raised}\n"
    )
    sys.modules.pop("broken", None)
    declare_plugins(site, group=f"nestedge.{noun}s", entries={"broken": "broken:Plugin"})
    result = _run("--json")
    assert result.exit_code == 0
    found = {"part": f"{noun} broken", "works": False, "detail": detail}
    assert found in json.loads(result.stdout)["parts"]


def test_json_says_the_same(fake_runtime: Path) -> None:
    document = json.loads(_run("--json").stdout)
    assert {"detail": "fake 1.0", "part": "runtime fake", "works": True} in document["parts"]
    assert document["python"].startswith("3.")
    assert "device" in document


def test_the_telemetry_of_onnxruntime_is_off(site: Path) -> None:
    # Under a name of its own, as it may be installed under "onnx" too.
    entries = {"onnx-here": "nestedge_onnx.runtime:OnnxRuntime"}
    declare_plugins(site, group="nestedge.runtimes", entries=entries)
    assert "telemetry: that of onnxruntime is off\n" in _run().stdout
