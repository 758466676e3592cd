"""The command line: one module per verb, each imported only when it is called.

`nestedge verify` must run on a device without torch, so that the list of verbs and their one-line
helps stands here. Errors are one line on stderr, and the exit codes are those of `nestedge.errors`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import click

from nestedge.errors import MissingDependencyError, NestedgeError, UsageError, did_you_mean

INTERRUPTED = 130
"""What a process that Ctrl-C ended returns: 128 + SIGINT."""


@dataclass(frozen=True)
class Verb:
    """A verb that is not imported yet.

    Attributes:
        help: one line.
        extra: of nestedge that installs what the verb needs; the extra of a runtime is told by it.
    """

    help: str
    extra: str | None = None


VERBS = {
    "demo": Verb("The whole story on real data, in one command.", extra="demo"),
    "train": Verb("A recipe: from data to a nested network, levels together.", extra="convert"),
    "import": Verb("A checkpoint of another nested or pruned network as a .nest.", extra="convert"),
    "doctor": Verb("What works here; for what is missing, the exact line to type."),
    "devices": Verb("What is known about devices, figure by figure, and about this one."),
    "inspect": Verb("Levels of a nested network: parameters, MACs, the proof.", extra="convert"),
    "export": Verb("One level as one plain file.", extra="convert"),
    "build": Verb("Every level for every runtime: a folder of artifacts.", extra="convert"),
    "engine": Verb("What TensorRT runs: built and verified on the device it is for."),
    "verify": Verb("Whether artifacts still are their levels."),
    "placement": Verb("How much runs on the accelerator, and which operators do not."),
    "run": Verb("Run an artifact on an image or on arrays."),
    "profile": Verb("Measure latency, load time and accuracy on this device."),
    "pick": Verb("The best artifact within a budget, and why not the others."),
    "report": Verb("All that is known of a build, as one HTML page.", extra="report"),
    "ship": Verb("What was built and verified, into a repository for devices."),
    "fetch": Verb("What a repository has for this device, every byte checked."),
}


class VerbGroup(click.Group):
    """A group that knows its verbs by name, and turns every error of theirs into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs, in the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a verb, imported now.

        Raises:
            UsageError: there is no such verb.
            MissingDependencyError: a package that the verb imports is not installed.
        """
        if cmd_name not in VERBS:
            suggestion = did_you_mean(cmd_name, VERBS)
            raise UsageError(f"no verb {cmd_name!r}; verbs are {', '.join(VERBS)}{suggestion}")
        try:
            module = import_module(f"nestedge.cli.{cmd_name}")
        except ModuleNotFoundError as error:
            package, extra = (error.name or "").partition(".")[0], VERBS[cmd_name].extra
            if extra is None or package == "nestedge":
                raise
            raise MissingDependencyError(
                f"'nestedge {cmd_name}' needs {package}: pip install 'nestedge[{extra}]'"
            ) from error
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the verbs into the help without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb.

        Raises:
            click.Abort: Ctrl-C was pressed.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            # Left to click, it would print an empty line first.
            raise click.Abort from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command line and, if `standalone_mode`, ends the process with its exit code."""

        def run() -> Any:
            return super(VerbGroup, self).main(
                args,
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        return sys.exit(_exit_code(run)) if standalone_mode else run()


def _exit_code(run: Callable[[], object]) -> int:
    """Runs, and reports what went wrong in one line on stderr."""
    try:
        result = run()
    except click.Abort:
        return _report("interrupted", INTERRUPTED)
    except click.ClickException as error:
        message = error.format_message()
        return _report(message[:1].lower() + message[1:].rstrip("."), error.exit_code)
    except NestedgeError as error:
        return _report(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _report(f"{error.name} is not installed; 'nestedge doctor' says what to type", 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _report(f"{where}{(error.strerror or str(error)).lower()}", 1)
    except ValueError as error:
        return _report(str(error), UsageError.exit_code)
    # A command that ends itself by ctx.exit gives its code; others give None.
    return result if isinstance(result, int) else 0


def _report(message: str, exit_code: int) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return exit_code


@click.group(cls=VerbGroup, invoke_without_command=True, subcommand_metavar="VERB [ARGS]...")
@click.option("--version", is_flag=True, help="Print the version.")
@click.pass_context
def main(ctx: click.Context, version: bool) -> None:
    """Nested networks for edge devices: many sizes in one set of weights."""
    if version:
        click.echo(f"nestedge {metadata.version('nestedge')}")
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
