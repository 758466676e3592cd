"""An ONNX model as an OpenVINO IR: a graph in XML, and the bytes of its constants beside it."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import openvino

from nestedge.errors import NestedgeError
from nestedge_openvino.refusal import refusal

WEIGHTS_FILE = "model.bin"
"""OpenVINO looks for the constants of model.xml under this name."""


@dataclass(frozen=True)
class Intermediate:
    """The two files of an OpenVINO model."""

    graph: bytes
    weights: bytes


def to_intermediate(model: bytes, *, halve: bool) -> Intermediate:
    """An ONNX model as an OpenVINO IR.

    The model is read by OpenVINO's core: `openvino.convert_model` does the same and can send usage
    data.

    Args:
        model: the content of an ONNX file.
        halve: store constants of float32 as float16.

    Raises:
        NestedgeError: OpenVINO has no operator that the network needs.
    """
    try:
        graph = openvino.Core().read_model(model)
        _rename(graph)
        # Without it two sets of weights of one network would have the same XML, by whose hash
        # verifications and measurements know what they are of.
        graph.set_rt_info(hashlib.sha256(model).hexdigest(), ["nestedge", "source_sha256"])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(graph, path, compress_to_fp16=halve)
            return Intermediate(path.read_bytes(), (path.parent / WEIGHTS_FILE).read_bytes())
    except RuntimeError as error:
        raise NestedgeError(f"OpenVINO cannot convert the level: {refusal(error)}") from error


def _rename(graph: openvino.Model) -> None:
    """Numbers anew what OpenVINO has numbered: it counts on from one model to the next."""
    nodes = graph.get_ordered_ops()
    numbered = [
        bool(re.fullmatch(rf"{node.get_type_name()}_\d+", node.get_friendly_name()))
        for node in nodes
    ]
    pairs = list(zip(nodes, numbered, strict=True))
    taken = {node.get_friendly_name() for node, is_numbered in pairs if not is_numbered}
    for index, (node, is_numbered) in enumerate(pairs):
        if is_numbered:
            name = f"{node.get_type_name()}_{index}"
            node.set_friendly_name(f"{name}_" if name in taken else name)
