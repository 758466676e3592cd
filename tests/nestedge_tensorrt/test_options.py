from __future__ import annotations

import pytest

from nestedge.errors import UsageError
from nestedge.plugins import TensorInfo
from nestedge_tensorrt.options import BOUNDARIES, Batches, EngineOptions, build_arguments
from tests.nestedge_tensorrt.trtexec_grammar import VERSIONS, parse

INPUTS = (TensorInfo("image", (1, 3, 8, 8), "float32"), TensorInfo("tokens", (1, 5), "int32"))
FILES = {"--onnx", "--saveEngine"}

ALL: dict[str, EngineOptions] = {
    "none": EngineOptions(),
    "strongly typed": EngineOptions(strongly_typed=True),
    "sparse": EngineOptions(sparsity=True),
    "DLA": EngineOptions(dla_core=1),
    "version-compatible": EngineOptions(version_compatible=True),
    "stripped": EngineOptions(strip_weights=True),
    "workspace": EngineOptions(workspace_mib=512),
    "timings": EngineOptions(timing_cache=True),
    "batches": EngineOptions(batches=Batches(1, 4, 8)),
    "many": EngineOptions(sparsity=True, dla_core=0, version_compatible=True, workspace_mib=64),
}


def _build(precision: str, options: EngineOptions, version: str) -> tuple[str, ...]:
    return build_arguments(precision, options, version, inputs=INPUTS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_line_is_one_that_its_version_takes_or_it_is_refused(
    precision: str, options: EngineOptions, version: str
) -> None:
    try:
        arguments = _build(precision, options, version)
    except UsageError:
        return
    parse(arguments, version, is_static=options.batches is None)


@pytest.mark.parametrize(
    ("precision", "options", "flags"),
    [
        ("fp32", {}, {"--noTF32"}),
        ("fp16", {}, {"--fp16"}),
        ("int8", {}, {"--int8", "--fp16"}),
        ("fp32", {"strongly_typed": True}, {"--stronglyTyped", "--noTF32"}),
        ("int8", {"strongly_typed": True}, {"--stronglyTyped"}),
        ("fp16", {"strongly_typed": True}, {"--stronglyTyped"}),
        ("fp16", {"dla_core": 1}, {"--fp16", "--useDLACore=1", "--allowGPUFallback"}),
        ("fp16", {"sparsity": True}, {"--fp16", "--sparsity=enable"}),
        ("fp16", {"version_compatible": True}, {"--fp16", "--versionCompatible"}),
        ("fp16", {"strip_weights": True}, {"--fp16", "--stripWeights"}),
        ("fp16", {"workspace_mib": 512}, {"--fp16", "--memPoolSize=workspace:512"}),
        ("fp16", {"timing_cache": True}, {"--fp16", "--timingCacheFile=timing.cache"}),
        (
            "fp16",
            {"batches": Batches(1, 4, 8)},
            {
                "--fp16",
                "--minShapes=image:1x3x8x8,tokens:1x5",
                "--optShapes=image:4x3x8x8,tokens:4x5",
                "--maxShapes=image:8x3x8x8,tokens:8x5",
            },
        ),
    ],
)
def test_what_is_asked_for_is_on_the_line_and_nothing_else(
    precision: str, options: dict[str, object], flags: set[str]
) -> None:
    asked = EngineOptions(**options)  # type: ignore[arg-type]
    found = set(_build(precision, asked, "10.3.0"))
    assert {flag for flag in found if flag.partition("=")[0] not in FILES} == {
        "--skipInference",
        *flags,
    }


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("8.2.1", {"--workspace=512", "--buildOnly"}),
        ("8.4.1", {"--memPoolSize=workspace:512", "--buildOnly"}),
        ("8.5.2", {"--memPoolSize=workspace:512", "--buildOnly"}),
        ("8.6.2", {"--memPoolSize=workspace:512", "--skipInference"}),
        ("10.3.0.30", {"--memPoolSize=workspace:512", "--skipInference"}),
    ],
)
def test_an_option_is_spelt_as_its_version_spells_it(version: str, flags: set[str]) -> None:
    found = set(_build("fp32", EngineOptions(workspace_mib=512), version))
    assert {flag for flag in found if flag.partition("=")[0] not in {*FILES, "--noTF32"}} == flags


@pytest.mark.parametrize(
    ("precision", "options", "version", "message"),
    [
        ("int8", {}, "11.0", r"TensorRT 11\.0 has no --int8 any more; .*strongly typed engine"),
        (
            "fp16",
            {},
            "11.1.0",
            r"TensorRT 11\.1\.0 has no --fp16 any more; .*strongly typed engine",
        ),
        (
            "fp32",
            {"strongly_typed": True},
            "8.6.2",
            r"--stronglyTyped needs TensorRT 9\.0, found 8\.6\.2; leave it out",
        ),
        (
            "fp16",
            {"version_compatible": True},
            "8.5.2",
            r"--versionCompatible needs TensorRT 8\.6, found 8\.5\.2; build again after",
        ),
        (
            "fp16",
            {"strip_weights": True},
            "8.6.2",
            r"--stripWeights needs TensorRT 10\.0, found 8\.6\.2; build the engine with",
        ),
        (
            "fp16",
            {"strongly_typed": True, "strip_weights": True},
            "10.3",
            "whose weights are fp32: build a strongly typed engine of fp16 with its weights",
        ),
        (
            "fp32",
            {"batches": Batches(1, 2, 4), "strip_weights": True},
            "10.3",
            "which is for one batch size: build an engine for several with its weights",
        ),
        ("fp32", {"dla_core": 0}, "10.3", "a DLA computes in fp16 and int8 only"),
        ("int8", {"dla_core": 0, "strongly_typed": True}, "10.3", "a DLA chooses types"),
    ],
)
def test_what_a_version_lacks_is_refused_with_the_reason(
    precision: str, options: dict[str, object], version: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _build(precision, EngineOptions(**options), version)  # type: ignore[arg-type]


def test_tensorrt_11_builds_what_is_strongly_typed() -> None:
    parse(_build("fp32", EngineOptions(), "11.1"), "11.1")
    for precision in ("fp16", "int8"):
        parse(_build(precision, EngineOptions(strongly_typed=True), "11.1"), "11.1")


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 4), (1, 4, 2)])
def test_batches_that_do_not_ascend_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="expected three batch sizes, from the least to the most"):
        Batches.of(*sizes)


BETWEEN = {"8.4": "8.5.3", "8.6": "8.6.2", "9.0": "9.3", "10.0": "10.16.1", "11.0": "12.3"}


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_only_boundaries_change_a_line(options: EngineOptions) -> None:
    for precision in ("fp32", "fp16", "int8"):
        for first, between in [
            ("8.6", "8.6.2"),
            ("9.0", "9.3"),
            ("10.0", "10.16.1"),
            ("11.0", "12.3"),
        ]:
            assert first in BOUNDARIES
            found = [_line(precision, options, version) for version in (first, between)]
            assert found[0] == found[1]


def _line(precision: str, options: EngineOptions, version: str) -> tuple[str, ...] | None:
    try:
        return _build(precision, options, version)
    except UsageError:
        return None


def test_a_timing_cache_makes_no_other_engine() -> None:
    assert EngineOptions(timing_cache=True).text() == EngineOptions().text() == ""
    assert EngineOptions(batches=Batches(1, 2, 3)).text() == "batches=[1, 2, 3]"
