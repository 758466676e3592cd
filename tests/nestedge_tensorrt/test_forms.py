from __future__ import annotations

from dataclasses import replace

import pytest

from nestedge_tensorrt.forms import AS_SHIPPED, Form, form_for
from nestedge_tensorrt.options import Batches, EngineOptions
from tests.nestedge_tensorrt.test_engine import SPECS

TYPED = EngineOptions(strongly_typed=True)
FREE = EngineOptions(batches=Batches(1, 2, 4))


@pytest.mark.parametrize(
    ("precision", "minimum", "version", "options", "form"),
    [
        ("fp32", "8.5", "8.5.2", EngineOptions(), AS_SHIPPED),
        ("fp32", "8.5", "8.2.1", EngineOptions(), Form(is_old=True)),
        ("int8", "8.6", "8.5.2", EngineOptions(), Form(is_old=True)),
        # A type of inputs that TensorRT 10 brought: no older form has it.
        ("fp32", "10.0", "8.6.2", EngineOptions(), AS_SHIPPED),
        ("fp16", "8.5", "10.3", EngineOptions(), AS_SHIPPED),
        ("fp16", "8.5", "11.0", TYPED, Form(is_half=True)),
        ("fp32", "8.5", "11.0", TYPED, AS_SHIPPED),
        ("int8", "8.5", "11.0", TYPED, AS_SHIPPED),
        ("fp32", "8.5", "10.3", FREE, Form(is_free=True)),
        ("fp16", "8.6", "8.2.1", FREE, Form(is_old=True, is_free=True)),
    ],
)
def test_a_builder_is_given_the_form_that_it_builds_from(
    precision: str, minimum: str, version: str, options: EngineOptions, form: Form
) -> None:
    spec = replace(SPECS[precision], minimum_tensorrt=minimum)
    assert form_for(spec, version, options) == form


def test_a_form_is_named_by_what_is_another_one() -> None:
    assert str(AS_SHIPPED) == "as it is shipped"
    assert str(Form(is_old=True, is_free=True)) == "in opset 13, for batches of any size"
