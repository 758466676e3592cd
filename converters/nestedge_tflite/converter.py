"""The converter plug-in "tflite": files for LiteRT."""

from __future__ import annotations

from importlib.metadata import version

from nestedge.affine import fold_affine
from nestedge.convert import BuildSpec, Converted, LevelProgram, check_half, check_spec
from nestedge.folding import lower_batch_norms
from nestedge_tflite.exporter import export_model
from nestedge_tflite.flatbuffer import described
from nestedge_tflite.quantization import quantize, to_half


class TfliteConverter:
    """The converter plug-in "tflite"."""

    name = "tflite"
    runtime = "tflite"
    checked_by = "tflite"
    suffix = ".tflite"
    precisions = ("fp32", "fp16", "int8")
    packages = ("torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer")

    def export(self, level: LevelProgram, *, batch: int = 1) -> TfliteExported:
        """The level as a TFLite file of a fixed batch size, its signature named as the network's.

        Raises:
            NestedgeError: litert-torch cannot express the network.
        """
        folded = fold_affine(lower_batch_norms(level))
        return TfliteExported(self, folded, export_model(folded, batch=batch))


class TfliteExported:
    """A level as a TFLite file in single precision, from which the other precisions are made."""

    def __init__(self, converter: TfliteConverter, level: LevelProgram, model: bytes) -> None:
        self._converter = converter
        self._level = level
        self._model = model

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as a TFLite file.

        Raises:
            UsageError: the precision is not one it has, or int8 lacks calibration data.
            NestedgeError: ai-edge-quantizer cannot make the precision of the network, or
                fp16 cannot hold one of its weights.
        """
        check_spec(self._converter, spec)
        if spec.precision == "fp16":
            check_half(self._level)
        content = _in_precision(self._model, spec)
        producer = {name: version(name) for name in self._converter.packages}
        return described(content, self._level, producer=producer)


def _in_precision(model: bytes, spec: BuildSpec) -> bytes:
    if spec.precision == "int8":
        return quantize(model, spec.calibration or {})
    return to_half(model) if spec.precision == "fp16" else model
