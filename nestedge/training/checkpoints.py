"""Checkpoints of training: written whole or not at all, and read without running anything."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from nestedge.documents import write_whole
from nestedge.errors import FormatError, UsageError
from nestedge.training.processes import is_first, wait_for_all

FORMAT = 1
LAST, BEST = "last.pt", "best.pt"


class Stateful(Protocol):
    """What has state besides weights that a resumed training needs: masks, a method's velocity."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as tensors, numbers, texts, and lists and dicts of such."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps its checkpoints, and how often.

    Training that is called once more with the same folder goes on where it was, and ends with the
    same weights, bit for bit on a CPU, as if it had not been interrupted.

    Attributes:
        folder: is made; holds `last.pt`, the state after the last step that was saved, and, where
            levels are evaluated, `best.pt`, that of the epoch with the best mean accuracy.
        every: steps from one checkpoint to the next within an epoch; None is at the end of every
            epoch only.
    """

    folder: Path
    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise UsageError(f"checkpoints: expected every 1 step or more, found {self.every}")

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is written after so many steps of an epoch."""
        return self.every is not None and step % self.every == 0

    def write(self, state: Mapping[str, Any], *, name: str = LAST) -> None:
        """Write a checkpoint; a crash leaves the one before, or the new one.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        if is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            torch.save({"format": FORMAT, **state}, content)
            write_whole(self.folder / name, content.getvalue())
        wait_for_all()

    def read(self, name: str = LAST) -> dict[str, Any] | None:
        """A checkpoint, on the CPU; None where there is none.

        Raises:
            FormatError: it is damaged, or not one of ours.
            OSError: it cannot be read.
        """
        path = self.folder / name
        if not path.exists():
            return None
        content = io.BytesIO(path.read_bytes())
        try:
            # Tensors and plain data only: a pickle that does more is refused.
            state = torch.load(content, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
            raise FormatError(
                f"{path}: not a whole checkpoint ({_short(error)}); remove it to begin anew"
            ) from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            found = state.get("format") if isinstance(state, dict) else type(state).__name__
            raise FormatError(
                f"{path}: expected a checkpoint of format {FORMAT}, found {found}; "
                "go on with the nestedge that wrote it, or remove it to begin anew"
            )
        return state


def load_parts(parts: Mapping[str, Stateful], state: Mapping[str, Any], *, where: Path) -> None:
    """Give parts of a training what a checkpoint has of them.

    Raises:
        UsageError: the checkpoint is of another training; nothing says how far that one was.
    """
    if parts.keys() != state.keys():
        raise UsageError(
            f"{where}: is of a training with {sorted(state)}, this one has {sorted(parts)}; "
            "give another folder, or remove it to begin anew"
        )
    name = ""
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{where}: is of another training: {name}: {_short(error)}; "
            "give another folder, or remove it to begin anew"
        ) from error


def _short(error: BaseException) -> str:
    """A message of many lines as one."""
    return " ".join(str(error).split())[:200] or type(error).__name__
