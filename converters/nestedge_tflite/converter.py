"""The converter plug-in "tflite": files for LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version

from nestedge import __version__
from nestedge.affine import fold_affine
from nestedge.convert import (
    BuildSpec,
    Converted,
    LevelProgram,
    check_half,
    check_half_layers,
    check_spec,
)
from nestedge.errors import UsageError
from nestedge.explanation import constants_of
from nestedge.folding import lower_batch_norms
from nestedge.precisions import PRECISIONS
from nestedge.program.arguments import layer_weights
from nestedge_tflite.exporter import export_levels, export_model
from nestedge_tflite.flatbuffer import constants, described, float_operators
from nestedge_tflite.grids import WeightGrid, weight_grids
from nestedge_tflite.metadata import with_description
from nestedge_tflite.mixed import NOTHING, FloatPart, float_part
from nestedge_tflite.quantization import quantize, to_half
from nestedge_tflite.recipes import (
    listed,
    quantize_dynamically,
    quantize_fully,
    quantize_to_16_bits,
)


class TfliteConverter:
    """The converter plug-in "tflite"."""

    name = "tflite"
    runtime = "tflite"
    checked_by = "tflite"
    suffix = ".tflite"
    precisions = tuple(PRECISIONS)
    # Nothing of int8-full may compute in floating point.
    mixed = ("int8", "int16x8")
    packages = ("torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer")

    def export(self, level: LevelProgram, *, batch: int = 1) -> TfliteExported:
        """The level as a TFLite file of a fixed batch size, its signature named as the network's.

        Raises:
            NestedgeError: litert-torch cannot express the network.
        """
        folded = _folded(level)
        return TfliteExported(self, folded, export_model(folded, batch=batch))

    def export_levels(self, levels: Mapping[str, LevelProgram], *, batch: int = 1) -> TfliteFamily:
        """Several levels as one TFLite file, with a signature of its name for each.

        Tensors that levels have in common are in it once: the weights of levels that differ in
        depth alone. Levels of other widths have no tensor in common.

        Raises:
            NestedgeError: litert-torch cannot express one of them.
        """
        folded = {name: _folded(level) for name, level in levels.items()}
        return TfliteFamily(self, folded, export_levels(folded, batch=batch))


class TfliteExported:
    """A level as a TFLite file in single precision, from which the other precisions are made.

    Attributes:
        converter: that it is from.
        level: with its affine operations folded.
        model: the file.
    """

    def __init__(self, converter: TfliteConverter, level: LevelProgram, model: bytes) -> None:
        self.converter = converter
        self.level = level
        self.model = model

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as a TFLite file.

        Raises:
            UsageError: the precision is not one it has, int8 lacks calibration data, or a layer
                that is to stay in half precision cannot.
            NestedgeError: ai-edge-quantizer cannot make the precision of the network, or
                half precision cannot hold one of its weights.
        """
        check_spec(self.converter, spec)
        check_half_layers(self.level, spec)
        if spec.precision == "fp16":
            check_half(self.level)
        left, names = self._left(spec)
        grids = self._grids if spec.is_on_family_grids else []
        content = _in_precision(self.model, spec, grids, left=left)
        producer = {name: version(name) for name in self.converter.packages}
        made = described(
            content, self.level, producer=producer, grids=[found.grid for found in grids]
        )
        return replace(made, half_layers=names)

    def _left(self, spec: BuildSpec) -> tuple[FloatPart, tuple[str, ...]]:
        """What computes in floating point, and the names of its weights in the level."""
        if not spec.half_layers:
            return NOTHING, ()
        names, found = layer_weights(self.level.program), list(constants(self.model))
        of = constants_of(names, found, self.level)
        asked = frozenset().union(*(of[name] for name in spec.half_layers))
        left = float_part(self.model, asked)
        return left, tuple(name for name, tensors in of.items() if tensors & left.weights)

    @cached_property
    def _grids(self) -> list[WeightGrid]:
        """Those of all precisions in whole numbers: where each weight comes from is found once."""
        return weight_grids(self.model, self.level)


class TfliteFamily:
    """Several levels as one TFLite file in single precision."""

    def __init__(
        self, converter: TfliteConverter, levels: Mapping[str, LevelProgram], model: bytes
    ) -> None:
        self._converter = converter
        self._levels = levels
        self._model = model

    def convert(self, spec: BuildSpec) -> bytes:
        """The levels as the bytes of one TFLite file.

        Raises:
            UsageError: the precision takes ranges from calibration data, which are each level's.
            NestedgeError: fp16 cannot hold one of the weights.
        """
        if PRECISIONS[spec.precision].is_calibrated:
            known = [name for name, found in PRECISIONS.items() if not found.is_calibrated]
            raise UsageError(
                f"{self._converter.name}: several levels in one file: expected a precision of "
                f"{known}, found {spec.precision!r}"
            )
        check_spec(self._converter, spec)
        if spec.precision == "fp16":
            for level in self._levels.values():
                check_half(level)
        return _in_precision(self._model, spec, (), left=NOTHING)


def _folded(level: LevelProgram) -> LevelProgram:
    return fold_affine(lower_batch_norms(level))


def _in_precision(
    model: bytes, spec: BuildSpec, grids: Sequence[WeightGrid], *, left: FloatPart
) -> bytes:
    """A file in a precision, which it says of itself."""
    calibration, text = spec.calibration or {}, f"nestedge {__version__}: {spec.precision}"
    if spec.precision == "int8":
        content = quantize(model, calibration, grids=grids, left=left)
    elif spec.precision == "int8-full":
        content = quantize_fully(model, calibration, grids=grids)
    elif spec.precision == "int16x8":
        content = quantize_to_16_bits(model, calibration, grids=grids, left=left)
        floats = float_operators(content)
        text += f"; in single precision: {listed(floats)}" if floats else ""
    elif spec.precision == "int8-dynamic":
        content = quantize_dynamically(model)
    else:
        content = to_half(model) if spec.precision == "fp16" else model
    return with_description(content, text)
