"""The options of a budget, which several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from nestedge.selection import Budget, parse_duration, parse_size

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--latency", help="The median latency is at most this: 8ms, 0.5s."),
    click.option("--size", help="The model file is at most this: 40MB, 512KiB."),
    click.option("--memory", help="Weights and activations take at most this at once: 40MB."),
    click.option("--min-accuracy", type=float, help="The accuracy is at least this, in percent."),
)


def budget_options(command: Command) -> Command:
    """Gives a verb the options that `parse_budget` takes, by the same names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_budget(
    *,
    latency: str | None = None,
    size: str | None = None,
    memory: str | None = None,
    min_accuracy: float | None = None,
) -> Budget:
    """The budget that options give.

    Raises:
        UsageError: one of them is no limit, or none is given.
    """
    return Budget(
        latency_ms=None if latency is None else parse_duration(latency),
        size_bytes=None if size is None else parse_size(size),
        memory_bytes=None if memory is None else parse_size(memory),
        min_accuracy=min_accuracy,
    )
