"""What is asked of a plug-in that builds engines on devices, and what it answers.

Some runtimes run nothing but what was compiled on the device itself. Such a plug-in is declared
under the entry-point group `nestedge.engines`, by the name of that runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """How an engine is to be built.

    Attributes:
        on: where, as in "ssh://user@jetson"; None is this machine.
        by: "trtexec" or "python".
        strongly_typed: layers compute in the types that the model has, and in no others.
        dla_core: of the accelerator beside the GPU; None is the GPU alone.
        version_compatible: later versions of the runtime load the engine too.
        strip_weights: the engine has no weights; they come from the model when it is loaded.
        workspace_mib: memory that kernels may have for themselves; None is all there is.
        timing_cache: file that timings of kernels come from, and go to.
        batches: the least, the best and the most samples that it takes at once; None is the one
            batch size of the artifact.
    """

    on: str | None = None
    by: str = "trtexec"
    strongly_typed: bool = False
    dla_core: int | None = None
    version_compatible: bool = False
    strip_weights: bool = False
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    batches: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What is known of a built engine.

    Attributes:
        folder: that it lies in.
        state: "built, unverified" or "verified".
        fingerprint: what it belongs to, by name: the network, the device, its software.
        build_seconds: that the build took, where that is known.
        max_error: against the level, where it ran.
    """

    folder: Path
    state: str
    fingerprint: dict[str, str]
    build_seconds: float | None
    max_error: float | None


@dataclass(frozen=True)
class EngineModel:
    """The model that a device would be given.

    Attributes:
        content: of the file.
        form: in words, what is another one than in the file that is shipped.
        line: what builds the engine, where the file is.
    """

    content: bytes
    form: str
    line: str


class EngineBuilder(Protocol):
    """A plug-in that builds engines, and runs them where they were built."""

    def model(self, folder: Path, request: EngineRequest, *, version: str) -> EngineModel:
        """The model of the artifact in a folder in the form that an engine is built from.

        Args:
            folder: of the artifact.
            request: how the engine is to be built; where does not matter.
            version: of the runtime that builds it.

        Raises:
            UsageError: something is asked for that cannot be.
            NestedgeError: it has no such form; the message says why.
        """
        ...

    def build(self, folder: Path, request: EngineRequest) -> EngineReport:
        """Builds the engine of the artifact in a folder.

        Raises:
            UsageError: something is asked for that cannot be.
            MissingDependencyError: a tool is missing, here or there.
            NestedgeError: the build failed; the message says why.
        """
        ...

    def verify(self, folder: Path, *, on: str | None) -> EngineReport:
        """Compares what the engine of an artifact gives with its level, where it was built.

        Raises:
            NestedgeError: the engine belongs elsewhere, or does not run.
            VerificationError: it is not its level.
        """
        ...

    def engines(self, folder: Path) -> list[EngineReport]:
        """The engines that the artifact in a folder has.

        Raises:
            FormatError: a file is not what it says it is.
        """
        ...
