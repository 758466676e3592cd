"""Converters that are quick, that fail, and that take their process with them."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

from safetensors.torch import save

from nestedge.convert import BuildSpec, Converted, LevelProgram, check_spec
from nestedge.devices.profile import DeviceProfile, Target
from nestedge.errors import NestedgeError
from nestedge.plugins import TensorInfo

NAMES = {
    "fake": "tests.fake_converters:FakeConverter",
    "failing": "tests.fake_converters:FailingConverter",
    "crashing": "tests.fake_converters:CrashingConverter",
    "printing": "tests.fake_converters:PrintingConverter",
}


@dataclass(frozen=True)
class FakeExported:
    """A level whose model file is its tensors and the precision."""

    converter: FakeConverter
    level: LevelProgram
    batch: int

    def convert(self, spec: BuildSpec) -> Converted:
        check_spec(self.converter, spec)
        self.converter.begin(spec.precision)
        program = self.level.program
        content = save({name: t.contiguous() for name, t in self.level.tensors.items()})
        return Converted(
            model=content + spec.precision.encode(),
            inputs=tuple(
                TensorInfo(item.name, item.shape_at(self.batch), "float32")
                for item in program.inputs
            ),
            outputs=tuple(
                TensorInfo(name, (self.batch, 3), "float32") for name, _ in program.outputs
            ),
            constants=(),
            producer={"fake": "1.0"},
            files={"note.txt": b"made by the fake converter\n"},
        )


class FakeConverter:
    """The converter plug-in "fake"."""

    name = "fake"
    runtime = "fake"
    checked_by = "fake"
    suffix = ".fake"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8", "int8-dynamic")
    packages = ("numpy",)

    def export(self, level: LevelProgram, *, batch: int = 1) -> FakeExported:
        return FakeExported(self, level, batch)

    def begin(self, precision: str) -> None:
        """What goes wrong with a precision."""


class FailingConverter(FakeConverter):
    """Has no words for fp16, and a mistake of its own in int8."""

    name = runtime = "failing"
    precisions = ("fp32", "fp16", "int8")

    def begin(self, precision: str) -> None:
        sys.stdout.write(f"about to convert {precision}\n")
        if precision == "fp16":
            raise NestedgeError("the fake framework has no half precision")
        if precision == "int8":
            raise KeyError("scale")


class CrashingConverter(FakeConverter):
    """Ends its process in fp16, as C++ does."""

    name = runtime = "crashing"

    def begin(self, precision: str) -> None:
        if precision == "fp16":
            os.write(2, b"about to crash\n")
            os.kill(os.getpid(), signal.SIGSEGV)


class PrintingConverter(FakeConverter):
    """Writes to stdout, where the answers of a worker go."""

    name = runtime = "printing"

    def begin(self, precision: str) -> None:
        os.write(1, b'{"done": true}\n')


def device(
    *runtimes: str, name: str = "bench", precisions: tuple[str, ...] = ("fp32", "fp16")
) -> DeviceProfile:
    """A device that runs some runtimes."""
    targets = tuple(Target(runtime, ("1.0",), precisions, "a test") for runtime in runtimes)
    return DeviceProfile(name, f"Bench {name}", "linux", targets=targets, figures={}, match={})
