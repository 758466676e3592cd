from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from nestedge import cli
from nestedge.errors import IntegrityError
from tests.fakes import declare_plugins, fake_build


def _run(*args: str) -> Result:
    return CliRunner().invoke(cli.main, args, prog_name="nestedge")


class OneVerb(cli.VerbGroup):
    """A group with one verb, which fails."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("nestedge")
        self._error = error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        def fail() -> None:
            raise self._error

        return click.Command("fail", callback=fail)


def _failing(error: BaseException) -> Result:
    return CliRunner().invoke(OneVerb(error), ["fail"])


def _process(
    program: Path | str, *args: str, site: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Python with the same import path as this process."""
    path = [str(site)] if site else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", str(program), *args],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_help_lists_every_verb_with_a_line() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    for name, verb in cli.VERBS.items():
        assert f"  {name} " in result.stdout
        assert verb.help in result.stdout
        assert len(verb.help) < 70


def test_without_a_verb_the_help_is_printed() -> None:
    assert _run().stdout == _run("--help").stdout


def test_the_version_is_that_of_the_distribution(site: Path) -> None:
    # Before whatever is installed: a distribution that says it is nestedge.
    declare_plugins(site, group="nestedge.runtimes", entries={})
    info = next(site.glob("*.dist-info"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nestedge\nVersion: 9.8\n")
    info.rename(site / "nestedge-9.8.dist-info")
    assert _run("--version").stdout == "nestedge 9.8\n"


def test_an_unknown_verb_is_refused_with_a_suggestion() -> None:
    result = _run("verfy", "dist")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: no verb 'verfy'; verbs are demo, ")
    assert result.stderr.endswith("; did you mean 'verify'?\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["verify"], "error: missing argument 'FOLDER'"),
        (["verify", "x", "--jsn"], "error: no such option"),
        (["verify", "x", "--threads", "0"], "error: invalid value for '--threads'"),
        (["--nope"], "error: no such option"),
    ],
)
def test_wrong_arguments_are_one_line(args: list[str], message: str) -> None:
    result = _run(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["doctor", "verify", "run", "profile", "pick"])
def test_every_verb_has_help_and_json(verb: str) -> None:
    result = _run(verb, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (IntegrityError("a\nb"), 6, "error: a b\n"),
        (ValueError("odd"), 2, "error: odd\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x.npz"), 1, "x.npz: no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "y"), 1, "y: permission denied"),
        (ModuleNotFoundError("no", name="torch"), 2, "torch is not installed; 'nestedge doctor'"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (EOFError(), 130, "error: interrupted\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_one_line_with_its_exit_code(
    error: BaseException, exit_code: int, message: str
) -> None:
    result = _failing(error)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_a_slip_of_ours_keeps_its_traceback() -> None:
    assert isinstance(_failing(TypeError("ours")).exception, TypeError)


def test_a_verb_whose_package_is_missing_names_the_line_to_type(tmp_path: Path) -> None:
    # A folder that shadows nestedge.cli.build stands for one that imports what is not installed.
    program = """
import sys
import nestedge.cli
nestedge.cli.__path__.insert(0, sys.argv.pop())
nestedge.cli.main(["build"])
"""
    (tmp_path / "build.py").write_text("import no_such_framework.sub\n")
    found = _process(program, str(tmp_path))
    assert found.returncode == 2
    line = "'nestedge build' needs no_such_framework: pip install 'nestedge[convert]'"
    assert found.stderr == f"error: {line}\n"


def test_neither_help_nor_verify_imports_torch(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path / "dist")
    program = """
import sys
from nestedge.cli import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in ("torch", "onnx", "PIL") if name in sys.modules], file=sys.stderr)
"""
    for args in (["--help"], ["verify", str(tmp_path / "dist")]):
        found = _process(program, *args, site=fake_runtime)
        assert found.returncode == 0, found.stderr
        assert found.stderr == "[]\n"


def test_the_package_runs_as_a_module() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-m", "nestedge", "verify", "/no/such"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("error: /no/such: no such folder")


def test_ctrl_c_in_a_verb_is_one_line(tmp_path: Path, site: Path) -> None:
    # The runtime presses Ctrl-C itself, so that the test waits for nothing.
    (site / "impatient.py").write_text(
        # A shell's background job ignores Ctrl-C, and so would what the tests start in one.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Plugin:\n"
        "    def __init__(self):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
    )
    declare_plugins(site, group="nestedge.runtimes", entries={"fake": "impatient:Plugin"})
    fake_build(tmp_path / "dist")
    program = "import sys; from nestedge.cli import main; main(sys.argv[1:])"
    found = _process(program, "verify", str(tmp_path / "dist"), site=site)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "error: interrupted\n")


def test_a_reader_that_went_away_is_no_error(tmp_path: Path, fake_runtime: Path) -> None:
    fake_build(tmp_path / "dist")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(fake_runtime), *sys.path])}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = subprocess.run(
            [sys.executable, "-m", "nestedge", "verify", str(tmp_path / "dist")],
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert found.stderr == b""
