"""The converter plug-in "executorch": .pte files for XNNPACK."""

from __future__ import annotations

from importlib.metadata import version

import torch
from torch.export import ExportedProgram

from nestedge.convert import BuildSpec, Converted, LevelProgram, check_spec
from nestedge.plugins import TensorInfo
from nestedge_executorch.lowering import export_level, lower, quantize
from nestedge_executorch.signature import to_text


class ExecutorchConverter:
    """The converter plug-in "executorch"."""

    name = "executorch"
    runtime = "executorch"
    checked_by = "executorch"
    suffix = ".pte"
    precisions = ("fp32", "int8")
    packages = ("torch", "torchao", "executorch")

    def export(self, level: LevelProgram, *, batch: int = 1) -> ExecutorchExported:
        """The level as torch.export has it, of a fixed batch size.

        Raises:
            NestedgeError: torch.export cannot express the network.
        """
        return ExecutorchExported(self, level, export_level(level, batch=batch), batch=batch)


class ExecutorchExported:
    """A level as torch.export has it, from which the files of all precisions are made."""

    def __init__(
        self,
        converter: ExecutorchConverter,
        level: LevelProgram,
        program: ExportedProgram,
        *,
        batch: int,
    ) -> None:
        self._converter = converter
        self._level = level
        self._program = program
        self._batch = batch

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as a .pte file.

        No constants are told of: XNNPACK's part of the file has them in an order of its own.

        Raises:
            UsageError: the precision is not one it has, or int8 lacks calibration data.
            NestedgeError: ExecuTorch has no operator that the network needs, or int8 cannot be
                made of it.
        """
        check_spec(self._converter, spec)
        program = self._program
        if spec.calibration and spec.precision == "int8":
            program = quantize(program, self._level, spec.calibration)
        inputs = tuple(
            _info(item.name, item.shape_at(self._batch), item.dtype)
            for item in self._level.program.inputs
        )
        outputs = self._outputs()
        return Converted(
            model=lower(program, to_text(inputs, outputs)),
            inputs=inputs,
            outputs=outputs,
            constants=(),
            producer={name: version(name) for name in self._converter.packages},
        )

    def _outputs(self) -> tuple[TensorInfo, ...]:
        values: dict[object, torch.Tensor] = {
            node.name: node.meta.get("val") for node in self._program.graph.nodes
        }
        found = (values[name] for name in self._program.graph_signature.user_outputs)
        names = (name for name, _ in self._level.program.outputs)
        return tuple(
            _info(name, tuple(value.shape), value.dtype)
            for name, value in zip(names, found, strict=True)
        )


def _info(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> TensorInfo:
    return TensorInfo(name, shape, str(dtype).removeprefix("torch."))
