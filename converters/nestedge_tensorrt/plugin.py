"""The engine plug-in "tensorrt": what `nestedge engine` calls."""

from __future__ import annotations

import shlex
from pathlib import Path

from nestedge.engines import EngineModel, EngineReport, EngineRequest
from nestedge.errors import UsageError
from nestedge_tensorrt.building import TOOLS, build_engine, device_model
from nestedge_tensorrt.options import Batches, EngineOptions
from nestedge_tensorrt.places import place
from nestedge_tensorrt.store import BuiltEngine, built_engines, engine_folder
from nestedge_tensorrt.verifying import verify_engine


class TensorrtEngines:
    """The engine plug-in "tensorrt". It needs no TensorRT itself: the device has it."""

    name = "tensorrt"

    def build(self, folder: Path, request: EngineRequest) -> EngineReport:
        """Builds the engine of the artifact in a folder.

        Raises:
            UsageError: something is asked for that cannot be.
            MissingDependencyError: ssh or a tool is missing, here or there.
            NestedgeError: the build failed; the message says why.
        """
        if request.by not in TOOLS:
            raise UsageError(f"an engine is built by {' or '.join(TOOLS)}, not {request.by!r}")
        target, built = build_engine(
            folder,
            place(request.on),
            by=request.by,
            options=_options(request),
            timing_cache=request.timing_cache,
        )
        return _report(target, built)

    def model(self, folder: Path, request: EngineRequest, *, version: str) -> EngineModel:
        """The model of the artifact in a folder in the form that an engine is built from.

        Raises:
            UsageError: something is asked for that cannot be.
            NestedgeError: it has no such form; the message says why.
        """
        content, form, line = device_model(folder, version, _options(request))
        return EngineModel(content, str(form), shlex.join(line))

    def verify(self, folder: Path, *, on: str | None) -> EngineReport:
        """Compares what the engine of an artifact gives with its level, where it was built.

        Raises:
            NestedgeError: the engine belongs elsewhere, or does not run.
            VerificationError: it is not its level.
        """
        built = verify_engine(folder, place(on))
        return _report(engine_folder(folder, built.fingerprint), built)

    def engines(self, folder: Path) -> list[EngineReport]:
        """The engines that the artifact in a folder has.

        Raises:
            FormatError: a file is not what it says it is.
        """
        return [
            _report(engine_folder(folder, built.fingerprint), built)
            for built in built_engines(folder)
        ]


def _options(request: EngineRequest) -> EngineOptions:
    return EngineOptions(
        strongly_typed=request.strongly_typed,
        dla_core=request.dla_core,
        version_compatible=request.version_compatible,
        strip_weights=request.strip_weights,
        workspace_mib=request.workspace_mib,
        batches=None if request.batches is None else Batches.of(*request.batches),
    )


def _report(folder: Path, built: BuiltEngine) -> EngineReport:
    return EngineReport(
        folder=folder,
        state=built.state,
        fingerprint=built.fingerprint.to_json(),
        build_seconds=built.build_seconds,
        max_error=built.max_error,
    )
