"""The converter plug-in "openvino": files for OpenVINO, by way of the converter "onnx"."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

from nestedge.convert import BuildSpec, Converted, LevelProgram, check_half, check_spec
from nestedge_onnx.converter import OnnxConverter, OnnxExported
from nestedge_openvino.intermediate import WEIGHTS_FILE, to_intermediate


class OpenvinoConverter:
    """The converter plug-in "openvino"."""

    name = "openvino"
    runtime = "openvino"
    checked_by = "openvino"
    suffix = ".xml"
    precisions = ("fp32", "fp16", "int8")
    mixed = ("int8",)
    packages = (*OnnxConverter.packages, "openvino")

    def export(self, level: LevelProgram, *, batch: int = 1) -> OpenvinoExported:
        """The level as an ONNX graph of a fixed batch size.

        Raises:
            NestedgeError: torch.onnx cannot express the network.
        """
        return OpenvinoExported(self, level, OnnxConverter().export(level, batch=batch))


class OpenvinoExported:
    """A level as an ONNX graph, from which the files of all precisions are made."""

    def __init__(
        self, converter: OpenvinoConverter, level: LevelProgram, exported: OnnxExported
    ) -> None:
        self._converter = converter
        self._level = level
        self._exported = exported

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as model.xml, and model.bin beside it.

        fp16 stores single precision in two bytes; int8 has the scales of the converter "onnx". No
        constants are told of: they lie in model.bin, and only those of the model file can be.

        Raises:
            UsageError: the precision is not one it has, or int8 lacks calibration data.
            NestedgeError: OpenVINO has no operator that the network needs, int8 cannot be made of
                it, or fp16 cannot hold one of its weights.
        """
        check_spec(self._converter, spec)
        halve = spec.precision == "fp16"
        if halve:
            check_half(self._level)
        made = self._exported.convert(replace(spec, precision="fp32") if halve else spec)
        files = to_intermediate(made.model, halve=halve)
        return Converted(
            model=files.graph,
            inputs=made.inputs,
            outputs=made.outputs,
            constants=(),
            producer={name: version(name) for name in self._converter.packages},
            half_layers=made.half_layers,
            files={WEIGHTS_FILE: files.weights},
        )
