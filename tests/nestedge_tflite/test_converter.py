from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks.redraw import redraw
from nestedge import __version__
from nestedge.convert import BuildSpec, LevelProgram
from nestedge.errors import UsageError
from nestedge.folding import fold_batch_norms
from nestedge.levels import Level
from nestedge.materialization import level_program
from nestedge.model import NestedModel
from nestedge.nested import Card, nest
from nestedge.plugins import TensorInfo
from nestedge_tflite.channels_last import TfliteNhwcConverter
from nestedge_tflite.converter import TfliteConverter, TfliteFamily
from nestedge_tflite.metadata import description, with_description
from nestedge_tflite.runtime import LiteRtRuntime
from tests.nestedge_tflite.handmade import write_model
from tests.networks import resnet

LEVELS = ("shallow", "full")


@cache
def _nested() -> NestedModel:
    """A network with a level that is less deep."""
    model = resnet()
    redraw(model, seed=0)
    levels = {"shallow": Level(depth=(1, 1)), "full": Level()}
    return nest(model.eval(), torch.zeros(1, 3, 8, 8), levels, card=Card(divisor=4))


@cache
def _levels() -> dict[str, LevelProgram]:
    return {name: fold_batch_norms(level_program(_nested(), name)) for name in LEVELS}


@cache
def _family() -> TfliteFamily:
    return TfliteConverter().export_levels(_levels())


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3), ("int8-dynamic", 0.05)]
)
def test_a_file_of_several_levels_computes_each(
    precision: str, tolerance: float, tmp_path: Path
) -> None:
    path = tmp_path / "family.tflite"
    path.write_bytes(_family().convert(BuildSpec(precision)))
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for level in LEVELS:
        session = LiteRtRuntime().open(path, signature=level)
        with torch.no_grad(), _nested().at(level):
            expected = _nested()(x).numpy()
        found = session.run({"x": x.numpy()})["output"]
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-dynamic"])
def test_levels_that_differ_in_depth_share_their_tensors(precision: str) -> None:
    together = len(_family().convert(BuildSpec(precision)))
    converter = TfliteConverter()
    alone = {
        name: len(converter.export(level).convert(BuildSpec(precision)).model)
        for name, level in _levels().items()
    }
    # What the second level adds is its graph.
    weights = 4 * sum(tensor.numel() for tensor in _levels()["shallow"].tensors.values())
    assert together < sum(alone.values()) - (weights if precision == "fp32" else weights / 4)


def test_images_of_several_levels_may_have_their_channels_last(tmp_path: Path) -> None:
    path = tmp_path / "family.tflite"
    path.write_bytes(TfliteNhwcConverter().export_levels(_levels()).convert(BuildSpec()))
    session = LiteRtRuntime().open(path, signature="shallow")
    assert session.inputs == (TensorInfo("x", (1, 8, 8, 3), "float32"),)


def test_ranges_of_several_levels_in_one_file_are_refused() -> None:
    cases = {"x": np.zeros((1, 1, 3, 8, 8), np.float32)}
    with pytest.raises(
        UsageError,
        match=r"several levels in one file: expected a precision of \['fp32', 'fp16', 'int8-dy",
    ):
        _family().convert(BuildSpec("int8", cases))


def test_a_file_says_what_made_it_and_where_it_was_made_stays_untold() -> None:
    made = TfliteConverter().export(_levels()["shallow"]).convert(BuildSpec("fp16"))
    assert description(made.model) == f"nestedge {__version__}: fp16"
    assert str(Path.cwd()).encode() not in made.model
    assert b"/tmp" not in made.model


@pytest.mark.parametrize("text", ["", "abc", "four", "größer"])
def test_a_description_replaces_another_and_the_file_stays_what_it_is(
    text: str, tmp_path: Path
) -> None:
    content = with_description(write_model(tmp_path / "one.tflite").read_bytes(), "before")
    changed = with_description(content, text)
    assert description(changed) == text
    assert len(changed) % 4 == 0
    path = tmp_path / "two.tflite"
    path.write_bytes(changed)
    x = np.ones((1, 2), np.float32)
    assert LiteRtRuntime().open(path).run({"x": x})["y"].tolist() == [[1, 5, 9]]


def test_linear_networks_have_every_precision(tmp_path: Path) -> None:
    layer = nn.Linear(8, 4)
    redraw(layer, seed=0)
    level = level_program(nest(layer, torch.zeros(1, 8), {"full": 1.0}), "full")
    exported = TfliteConverter().export(level)
    cases = np.random.default_rng(0).standard_normal((8, 1, 8)).astype(np.float32)
    sizes = {}
    for precision in TfliteConverter.precisions:
        made = exported.convert(BuildSpec(precision, {"input": cases}))
        path = tmp_path / precision
        path.write_bytes(made.model)
        found = LiteRtRuntime().open(path).run({"input": cases[0]})["output"]
        expected = layer(torch.from_numpy(cases[0])).detach().numpy()
        assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()
        sizes[precision] = len(made.model)
    assert set(sizes) >= {"fp32", "fp16", "int8", "int8-full", "int8-dynamic", "int16x8"}
