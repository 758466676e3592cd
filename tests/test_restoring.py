from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as read_safetensors
from safetensors.torch import save as safetensors_bytes

from nestedge.archive import archive_bytes
from nestedge.errors import FormatError
from nestedge.nestfile import load
from tests.json_changes import Json, places, put

Entries = dict[str, bytes]

_GOLDEN = Path(__file__).parent / "golden" / "format2.nest"
_GOLDEN_1 = _GOLDEN.with_name("format1.nest")
_GOLDEN_3 = _GOLDEN.with_name("format3.nest")
_GOLDEN_4 = _GOLDEN.with_name("format4.nest")


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _json(name: str, change: Callable[[Json], None]) -> Callable[[Entries], None]:
    def changed(entries: Entries) -> None:
        data = json.loads(entries[name])
        change(data)
        entries[name] = json.dumps(data).encode()

    return changed


def _manifest(*path: str | int, to: Json) -> Callable[[Entries], None]:
    return _json("manifest.json", put(*path, to=to))


def _program(*path: str | int, to: Json) -> Callable[[Entries], None]:
    return _json("program.json", put(*path, to=to))


def _tensor(name: str, to: torch.Tensor | None) -> Callable[[Entries], None]:
    def changed(entries: Entries) -> None:
        tensors = read_safetensors(entries["tensors.safetensors"])
        tensors.pop(name, None)
        if to is not None:
            tensors[name] = to
        entries["tensors.safetensors"] = safetensors_bytes(tensors)

    return changed


def _entry(name: str, to: bytes | None) -> Callable[[Entries], None]:
    def changed(entries: Entries) -> None:
        entries.pop(name, None)
        if to is not None:
            entries[name] = to

    return changed


class _Bomb:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return pytest.fail, ("a pickle was executed",)


_BAD: dict[str, tuple[Callable[[Entries], None], str]] = {
    "pickle beside": (
        _entry("data.pkl", pickle.dumps(_Bomb())),
        r"holds 'data\.pkl', which no \.nest has$",
    ),
    "path that climbs": (_entry("../x", b""), r"holds '\.\./x', which no \.nest has$"),
    "no manifest": (_entry("manifest.json", None), r"'manifest\.json' is missing$"),
    "no program": (_entry("program.json", None), r"'program\.json' is missing$"),
    "no tensors": (_entry("tensors.safetensors", None), r"'tensors\.safetensors' is missing$"),
    "pickle as tensors": (
        _entry("tensors.safetensors", pickle.dumps(_Bomb())),
        r"tensors\.safetensors: not safetensors: ",
    ),
    "empty tensors": (_entry("tensors.safetensors", b""), "not safetensors"),
    "manifest that is no JSON": (_entry("manifest.json", b"{"), r"manifest\.json: not JSON: "),
    "program that is no JSON": (_entry("program.json", b"\x80\x02"), r"program\.json: not JSON: "),
    "newer format": (
        _manifest("format", to=6),
        r"json: format 6, written by nestedge 0\.1\.0; nestedge .* reads formats 1 to 5: upgrade",
    ),
    "format 1 with a field of 2": (
        _manifest("format", to=1),
        r"calibration_cases: unknown; expected format, .*, examples$",
    ),
    "newer format with other entries": (
        lambda entries: (_manifest("format", to=7)(entries), _entry("new.bin", b"")(entries))[1],
        "format 7, written by",
    ),
    "no format": (_json("manifest.json", lambda m: m.pop("format")), "format: missing"),
    "unknown field": (_manifest("signature", to=""), "signature: unknown; expected format, "),
    "operator": (
        _program("eval", "nodes", 2, "op", to="aten.foo.default"),
        r"program\.json: eval\.nodes\[2\]\.op: operator 'aten\.foo\.default' is not allowed",
    ),
    "operator in training": (
        _program("train", "nodes", 0, "op", to="aten.foo.default"),
        r"program\.json: train\.nodes\[0\]\.op: operator",
    ),
    "expression": (
        _program("eval", "nodes", 0, "args", to=["s0*2"]),
        r"eval\.nodes\[0\]\.args\[0\]: expected a number, .*never evaluated",
    ),
    "expression object": (
        _program("eval", "nodes", 0, "args", to=[{"expr": "s0*2"}]),
        "expected one of value, tensor, dtype, float",
    ),
    "arguments that do not fit": (
        _program("eval", "nodes", 0, "args", to=[{"value": "image"}]),
        r"program\.json: eval: the program cannot run: ",
    ),
    "arguments that do not fit in training": (
        _program("train", "nodes", 0, "args", to=[{"value": "image"}]),
        r"program\.json: train: the program cannot run: ",
    ),
    "another network for training": (
        _program("train", "inputs", 0, "shape", to=[None, 3, 9, 9]),
        r"program\.json: train\.inputs: expected those of eval",
    ),
    "another tensor for training": (
        _program("train", "tensors", 0, "shape", to=[5]),
        r"program\.json: train: tensor 'stem.weight' is not the one that eval has",
    ),
    "tensor missing": (
        _tensor("shared/head.bias", None),
        r"tensors\.safetensors: tensor 'shared/head\.bias' is missing",
    ),
    "tensor of another shape": (
        _tensor("shared/head.bias", torch.zeros(5)),
        r"'shared/head\.bias': expected float32 of shape \[4\], found float32 of shape \[5\]",
    ),
    "tensor of another dtype": (
        _tensor("shared/head.bias", torch.zeros(4, dtype=torch.float16)),
        r"expected float32 of shape \[4\], found float16 of shape \[4\]",
    ),
    "tensor too many": (
        _tensor("shared/head.bios", torch.zeros(4)),
        r"'shared/head\.bios' does not belong here; did you mean 'shared/head\.bias'\?",
    ),
    "own tensor missing": (
        _tensor("levels/small/bn.weight", None),
        r"tensor 'levels/small/bn\.weight' is missing",
    ),
    "own tensor of another width": (
        _tensor("levels/small/bn.weight", torch.zeros(16)),
        r"'levels/small/bn\.weight': expected float32 of shape \[8\], found .* \[16\]",
    ),
    "example missing": (_tensor("examples/where_place", None), "'examples/where_place' is missing"),
    "calibration input missing": (
        _tensor("calibration/image", None),
        r"tensors\.safetensors: tensor 'calibration/image' is missing",
    ),
    "calibration of another shape": (
        _tensor("calibration/image", torch.zeros(2, 3, 8, 9)),
        r"'calibration/image': expected float32 of shape \[2, 3, 8, 8\], found .* \[2, 3, 8, 9\]",
    ),
    "calibration of another dtype": (
        _tensor("calibration/where_place", torch.zeros(2)),
        r"'calibration/where_place': expected int64 of shape \[2\], found float32 of shape \[2\]",
    ),
    "calibration of more cases than the manifest says": (
        _tensor("calibration/where_place", torch.zeros(3, dtype=torch.int64)),
        r"'calibration/where_place': expected int64 of shape \[2\], found int64 of shape \[3\]",
    ),
    "calibration of an unknown input": (
        _tensor("calibration/imag", torch.zeros(2)),
        r"'calibration/imag' does not belong here; did you mean 'calibration/image'\?",
    ),
    "calibration that is not a number": (
        _tensor("calibration/image", torch.full((2, 3, 8, 8), float("nan"))),
        r"tensors\.safetensors: calibration: input 'image': expected finite numbers, found nan at",
    ),
    "calibration that the manifest does not say": (
        _manifest("calibration_cases", to=None),
        r"tensor 'calibration/\w+' does not belong here",
    ),
    "calibration of no case": (
        _manifest("calibration_cases", to=0),
        r"manifest\.json: calibration_cases: expected an integer of at least 1, found 0",
    ),
    "calibration of absurdly many cases": (
        _manifest("calibration_cases", to=10**30),
        r"'calibration/image': expected float32 of shape \[10{30}, 3, 8, 8\], found",
    ),
    "no word about calibration": (
        _json("manifest.json", lambda m: m.pop("calibration_cases")),
        r"manifest\.json: calibration_cases: missing",
    ),
    "codes of another shape": (
        _tensor("codes/head.weight", torch.zeros(3, 16, dtype=torch.uint8)),
        r"'codes/head\.weight': expected uint8 of shape \[4, 16\]",
    ),
    "unknown code": (
        _tensor("codes/head.weight", torch.full((4, 16), 9, dtype=torch.uint8)),
        r"codes/head\.weight: expected codes below 3, as the manifest has patterns, found 9",
    ),
    "interval out of range": (
        _manifest("levels", 0, "kept", "stem", to=[[0, 17]]),
        r"levels\[0\]: level 'small', axis 'stem': expected ascending.* 0\.\.16, found \[\[0, 17\]",
    ),
    "interval backwards": (
        _manifest("levels", 0, "kept", "stem", to=[[8, 4]]),
        "expected ascending, disjoint intervals",
    ),
    "interval of three": (
        _manifest("levels", 0, "kept", "stem", to=[[0, 4, 8]]),
        r"levels\[0\]\.kept\.stem\[0\]: expected 2 values",
    ),
    "unknown axis": (
        _manifest("levels", 0, "kept", "stam", to=[[0, 8]]),
        r"levels\[0\]: no axis 'stam'; did you mean 'stem'\?",
    ),
    "level twice": (_manifest("levels", 1, "name", to="small"), "level 'small' exists already"),
    "level with a slash": (
        _manifest("levels", 1, "name", to="a/b"),
        r"levels\[1\]\.name: expected letters, digits",
    ),
    "level that looks like an option": (
        _manifest("levels", 1, "name", to="-x"),
        r"levels\[1\]\.name: .* and no '-' first",
    ),
    "own tensor that is unknown": (
        _manifest("levels", 0, "own", to=["bn.wait"]),
        r"manifest\.json: levels: the program has no tensor 'bn\.wait'; did you mean",
    ),
    "mask of an unknown level": (
        _manifest("masks", "head.weight", 1, to=["smal"]),
        r"masks\.head\.weight\[1\]\[0\]: no level 'smal'; .*; did you mean 'small'\?",
    ),
    "mask of an unknown tensor": (
        _manifest("masks", to={"head.wait": [[], ["small"]]}),
        "masks: the program has no tensor 'head.wait'",
    ),
    "mask with levels behind code 0": (
        _manifest("masks", "head.weight", 0, to=["small"]),
        "that of no level, is empty",
    ),
    "masks that do not nest": (
        _manifest("masks", "head.weight", 2, to=["small"]),
        "masks of levels 'small' and 'medium' are not nested",
    ),
    "axis of another size": (
        _manifest("axes", "stem", to={"size": 17, "unit": 1, "kind": "width", "bounds": []}),
        r"axes\.stem\.bounds: expected \[0, 8, 12, 17\] by what the levels keep, found \[\]",
    ),
    "axis of another unit": (
        _manifest("axes", "stem", "unit", to=2),
        r"axes\.stem: not what nestedge .* finds in the program",
    ),
    "axis too many": (
        _manifest("axes", "extra", to={"size": 4, "unit": 1, "kind": "width", "bounds": [0, 4]}),
        r"axes\.extra: not what nestedge",
    ),
    "layout of another axis": (
        _manifest("layouts", "stem.weight", "dims", 0, 0, 0, to="blocks.0.conv1"),
        r"layouts\.stem\.weight: not what nestedge",
    ),
    "layout of an unknown axis": (
        _manifest("layouts", "stem.weight", "dims", 0, 0, 0, to="stam"),
        r'layouts\.stem\.weight\.dims\[0\]\[0\]\[0\]: expected the name of an axis, found "stam"',
    ),
    "layout beyond its axis": (
        _manifest("layouts", "stem.weight", "dims", 0, 0, 2, to=17),
        "expected at most 16, the size of the axis, found 17",
    ),
    "layout of a unit beyond its axis": (
        _manifest("layouts", "blocks.0.bn1.weight", "requires", to=[["blocks", 2]]),
        r"requires\[0\]\[1\]: expected less than 2, the size of the axis, found 2",
    ),
    "layout of fewer dimensions": (
        _manifest("layouts", "stem.weight", "dims", to=[]),
        r"layouts\.stem\.weight: not what nestedge",
    ),
    "alias of nothing": (
        _manifest("aliases", to={"a": "b"}),
        "aliases: the program has no tensor 'b'",
    ),
    "examples of other inputs": (
        _manifest("examples", to=["image"]),
        r"examples: expected \['image', 'where_place'\], found \['image'\]",
    ),
    "preprocessing that divides by zero": (
        _manifest("preprocessing", "std", to=[0, 1, 1]),
        "preprocessing: scale and std must not be zero",
    ),
    "batch norm of another kind": (
        _manifest("batch_norm", to="frozen"),
        'batch_norm: expected "switchable" or "statistics"',
    ),
}


def _assert_refused(
    golden: Path, path: Path, change: Callable[[Entries], None], message: str
) -> None:
    entries = _entries(golden)
    change(entries)
    path.write_bytes(archive_bytes(entries))
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), _BAD.values(), ids=_BAD)
def test_a_wrong_file_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Entries], None], message: str
) -> None:
    _assert_refused(_GOLDEN, tmp_path / "bad.nest", change, message)


_BAD_4: dict[str, tuple[Callable[[Entries], None], str]] = {
    "no output": (
        _manifest("levels", 0, "kept", "outputs", to=[]),
        r"levels\[0\]: level 'core' gives no output; name one",
    ),
    "another output than the network's": (
        _manifest("levels", 0, "kept", "outputs", to=[[2, 4]]),
        r"axis 'outputs': expected ascending, disjoint intervals within 0\.\.3",
    ),
    "layout that serves another output": (
        _manifest("layouts", "late.0.weight", "serves", to=[["outputs", 1]]),
        r"layouts\.late\.0\.weight: not what nestedge",
    ),
    "layout that serves an unknown output": (
        _manifest("layouts", "fine.weight", "serves", to=[["outputs", 3]]),
        r"serves\[0\]\[1\]: expected less than 3, the size of the axis, found 3",
    ),
    "format 3 with what 4 has": (
        _manifest("format", to=3),
        "own: unknown; expected format, |consensus: unknown; expected format, ",
    ),
    "consensus of an unknown level": (
        _manifest("consensus", 0, "members", to=["half", "fill"]),
        r"consensus\[0\]: no level 'fill'; .*; did you mean 'full'\?",
    ),
    "consensus of one": (
        _manifest("consensus", 0, "members", to=["half"]),
        r"consensus\[0\]: level 'average': expected two or more different levels of",
    ),
    "consensus by the name of a level": (
        _manifest("consensus", 0, "name", to="half"),
        "level 'half' exists already",
    ),
    "consensus that looks like an option": (
        _manifest("consensus", 0, "name", to="-x"),
        r"consensus\[0\]\.name: .* and no '-' first",
    ),
    "consensus of something else": (
        _manifest("consensus", 0, "of", to="ranks"),
        r'consensus\[0\]\.of: expected "outputs" or "probabilities"',
    ),
    "consensus of an output that a member lacks": (
        _manifest("consensus", 0, "output", to="distance"),
        "manifest.json: consensus 'average': not all of .* give 'distance'; in common they give",
    ),
    "layer of other classes": (
        _manifest("consensus", 1, "layer", "classes", to=6),
        r"'levels/learned/weight': expected float32 of shape \[6, 12\], found .* \[5, 10\]",
    ),
    "layer of other classes and a tensor to match": (
        lambda entries: (
            _manifest("consensus", 1, "layer", "classes", to=1)(entries),
            _tensor("levels/learned/weight", torch.zeros(1, 2))(entries),
            _tensor("levels/learned/bias", torch.zeros(1))(entries),
        )[2],
        r"a learned layer takes outputs of shape \(batch, classes\), here of 1 classes in float32;",
    ),
    "layer of an unknown dtype": (
        _manifest("consensus", 1, "layer", "dtype", to="float31"),
        "consensus: 'learned': expected one of bool, .*, found 'float31'",
    ),
    "layer of zero classes": (
        _manifest("consensus", 1, "layer", "classes", to=0),
        r"consensus\[1\]\.layer\.classes: expected an integer of at least 1, found 0",
    ),
    "layer missing": (
        _tensor("levels/learned/bias", None),
        "tensor 'levels/learned/bias' is missing",
    ),
    "head of its own missing": (
        _tensor("levels/half/fine.weight", None),
        "tensor 'levels/half/fine.weight' is missing",
    ),
    "pattern that is no text": (_manifest("own", to=[3]), r"own\[0\]: expected a string, found 3"),
}


@pytest.mark.parametrize(("change", "message"), _BAD_4.values(), ids=_BAD_4)
def test_a_wrong_file_of_format_4_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Entries], None], message: str
) -> None:
    _assert_refused(_GOLDEN_4, tmp_path / "bad.nest", change, message)


def test_a_file_of_format_3_has_no_axis_of_outputs(tmp_path: Path) -> None:
    entries, path = _entries(_GOLDEN_4), tmp_path / "bad.nest"
    _json("manifest.json", lambda m: (m.pop("own"), m.pop("consensus"))[0])(entries)
    _manifest("format", to=3)(entries)
    path.write_bytes(archive_bytes(entries))
    with pytest.raises(FormatError, match=r"(axes\.outputs\.kind: expected|serves: unknown)"):
        load(path)


def test_a_file_of_format_1_with_calibration_data_is_refused(tmp_path: Path) -> None:
    entries, path = _entries(_GOLDEN_1), tmp_path / "bad.nest"
    _tensor("calibration/image", torch.zeros(2, 3, 8, 8))(entries)
    path.write_bytes(archive_bytes(entries))
    with pytest.raises(FormatError, match="tensor 'calibration/image' does not belong here"):
        load(path)


def test_a_file_of_format_2_has_no_finer_axes(tmp_path: Path) -> None:
    entries, path = _entries(_GOLDEN_3), tmp_path / "bad.nest"
    _manifest("format", to=2)(entries)
    path.write_bytes(archive_bytes(entries))
    with pytest.raises(FormatError, match=r"base: unknown; expected size, unit, kind, bounds"):
        load(path)


def test_the_bomb_of_the_tests_would_go_off() -> None:
    with pytest.raises(pytest.fail.Exception, match="a pickle was executed"):
        pickle.loads(pickle.dumps(_Bomb()))  # noqa: S301


_SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_SETTINGS
@given(st.data(), st.sampled_from(["manifest.json", "program.json"]))
def test_a_document_changed_anywhere_is_read_or_refused(
    tmp_path: Path, data: st.DataObject, name: str
) -> None:
    path, entries = tmp_path / "net.nest", _entries(_GOLDEN)
    document = json.loads(entries[name])
    container, key = data.draw(st.sampled_from(places(document)))
    container[key] = data.draw(
        st.sampled_from([None, True, 0, 1, -1, 3, 2**70, 0.5, "", "x", "s0*2", [], {}, [[0, 1]]])
    )
    entries[name] = json.dumps(document).encode()
    path.write_bytes(archive_bytes(entries))
    with contextlib.suppress(FormatError):
        load(path)
