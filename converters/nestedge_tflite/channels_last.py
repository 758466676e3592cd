"""The converter plug-in "tflite-nhwc": TFLite files whose images have their channels last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nestedge.convert import BuildSpec, Converted, LevelProgram
from nestedge.errors import NestedgeError
from nestedge.plugins import Array
from nestedge.program.graph import InputSpec, Node, Ref, bypassed
from nestedge_tflite.converter import TfliteConverter, TfliteExported, TfliteFamily

_TO_FRONT = (0, 3, 1, 2)


class TfliteNhwcConverter(TfliteConverter):
    """The converter plug-in "tflite-nhwc"."""

    name = "tflite-nhwc"

    def export(self, level: LevelProgram, *, batch: int = 1) -> TfliteNhwcExported:
        """The level as a TFLite file of a fixed batch size, its images with the channels last.

        Raises:
            NestedgeError: the level takes no images, or litert-torch cannot express it.
        """
        exported = super().export(with_channels_last(level), batch=batch)
        return TfliteNhwcExported(exported, image_inputs(level))

    def export_levels(self, levels: Mapping[str, LevelProgram], *, batch: int = 1) -> TfliteFamily:
        """The same of several levels, in one file.

        Raises:
            NestedgeError: the levels take no images, or litert-torch cannot express one.
        """
        moved = {name: with_channels_last(level) for name, level in levels.items()}
        return super().export_levels(moved, batch=batch)


class TfliteNhwcExported(TfliteExported):
    """A level as a TFLite file in single precision, whose images have their channels last.

    Args:
        exported: the level so changed.
        images: names of the inputs that are images.
    """

    def __init__(self, exported: TfliteExported, images: tuple[str, ...]) -> None:
        super().__init__(exported.converter, exported.level, exported.model)
        self._images = images

    def convert(self, spec: BuildSpec) -> Converted:
        """The level as a TFLite file.

        Args:
            spec: whose calibration data has the channels where the network has them.

        Raises:
            UsageError: the precision is not one it has, or int8 lacks calibration data.
            NestedgeError: ai-edge-quantizer cannot make the precision of the network.
        """
        calibration: dict[str, Array] | None = None
        if spec.calibration is not None:
            calibration = {
                name: np.moveaxis(array, 2, -1) if name in self._images else array
                for name, array in spec.calibration.items()
            }
        converted = super().convert(replace(spec, calibration=calibration))
        return replace(converted, channels_last=self._images)


def with_channels_last(level: LevelProgram) -> LevelProgram:
    """The level with images of shape (batch, height, width, channels) for inputs.

    The channels are moved to the front again by the first operators, which litert-torch drops: its
    convolutions want them last.

    Raises:
        NestedgeError: the level takes no images.
    """
    images = image_inputs(level)
    if not images:
        shapes = {spec.name: spec.shape for spec in level.program.inputs}
        raise NestedgeError(f"no input takes images, of four dimensions; inputs are {shapes}")
    front = {name: f"{name}.channels_first" for name in images}
    program = bypassed(level.program, {name: Ref(moved) for name, moved in front.items()})
    moves = tuple(
        Node("aten.permute.default", (Ref(name), _TO_FRONT), {}, (moved,))
        for name, moved in front.items()
    )
    inputs = tuple(_moved(s) if s.name in front else s for s in program.inputs)
    return replace(level, program=replace(program, inputs=inputs, nodes=(*moves, *program.nodes)))


def image_inputs(level: LevelProgram) -> tuple[str, ...]:
    """The names of the inputs with four dimensions and a fraction."""
    return tuple(
        spec.name
        for spec in level.program.inputs
        if len(spec.shape) == len(_TO_FRONT) and spec.dtype.is_floating_point
    )


def _moved(spec: InputSpec) -> InputSpec:
    batch, channels, height, width = spec.shape
    return replace(spec, shape=(batch, height, width, channels))
