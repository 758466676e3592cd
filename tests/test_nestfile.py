from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as read_safetensors
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import nn

from nestedge import nestfile
from nestedge.archive import archive_bytes
from nestedge.errors import FormatError, UsageError
from nestedge.levels import Level
from nestedge.materialization import materialize, state_dict, stored_tensors
from nestedge.nested import NestedModel, nest
from nestedge.nestfile import load
from tests.golden import make
from tests.json_changes import Json, places, put
from tests.networks import images, nested_perceptron, nested_resnet, vectors

Entries = dict[str, bytes]

_GOLDEN = Path(__file__).parent / "golden" / "format1.nest"


@pytest.fixture(scope="module")
def nested() -> NestedModel:
    return nested_resnet()


@pytest.fixture(scope="module")
def saved(nested: NestedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "net.nest"
    nested.save(path)
    return path


def _entries(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _same(a: object, b: object) -> bool:
    """Whether two nested outputs are equal bit by bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_loaded_network_equals_the_saved_one_on_every_level(
    nested: NestedModel, saved: Path, training: bool
) -> None:
    original, loaded = copy.deepcopy(nested).train(training), load(saved).train(training)
    assert loaded.levels == original.levels
    inputs, _ = images(4)
    for level in original.levels:
        with original.at(level), loaded.at(level):
            assert _same(original(inputs), loaded(inputs))
    assert _same(original(inputs), loaded(inputs))
    # In training the statistics have moved, and by the same.
    assert _same(stored_tensors(original), stored_tensors(loaded))


def test_dropout_and_training_outputs_come_back(tmp_path: Path) -> None:
    nested = nested_perceptron().train()
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest").train()
    inputs, _ = vectors(64)
    for level in nested.levels:
        with nested.at(level), loaded.at(level):
            torch.manual_seed(0)
            expected = nested(inputs)
            torch.manual_seed(0)
            assert _same(expected, loaded(inputs))
            assert "activity" in expected


def test_saving_leaves_the_network_in_its_mode(tmp_path: Path) -> None:
    nested = nested_perceptron()
    for training in (True, False):
        nested.train(training).save(tmp_path / "net.nest")
        assert nested.training is training
    assert not load(tmp_path / "net.nest").training


def test_everything_that_travels_comes_back() -> None:
    made, loaded = make.network(), load(_GOLDEN)
    assert loaded.card == made.card
    assert loaded.aliases == made.aliases == {"twin.weight": "head.weight"}
    assert _same(loaded.examples, made.examples)
    assert loaded.nesting == made.nesting
    assert loaded.elastic.program == made.elastic.program
    assert loaded.training_program == made.training_program


def test_a_loaded_network_materializes_and_gives_state_dicts(
    nested: NestedModel, saved: Path
) -> None:
    loaded = load(saved)
    inputs, _ = images(2)
    with nested.at("small"):
        expected = nested(inputs)
    assert torch.allclose(materialize(loaded, "small").module()(inputs), expected)
    assert _same(state_dict(loaded, "small"), state_dict(nested, "small"))


def test_a_loaded_network_takes_levels_and_trains(saved: Path) -> None:
    loaded = load(saved)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded.add_level("tiny", Level(0.25, depth=(1, 1)))
    loaded.train()
    with loaded.at("tiny"):
        loaded(images(2)[0]).sum().backward()
    assert any(parameter.grad is not None for parameter in loaded.parameters())


def test_a_saved_network_without_levels_comes_back(tmp_path: Path) -> None:
    nest(nn.Linear(4, 2), torch.zeros(2, 4), {}).save(tmp_path / "net.nest")
    assert load(tmp_path / "net.nest").levels == ()


class _Counting(nn.Module):
    """A parameter and a buffer of integers, and one that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.arange(4), requires_grad=False)
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("scratch", torch.ones(2, 3), persistent=False)
        self.linear = nn.Linear(4, 8)
        self.last = nn.Linear(8, 2, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.where(self.get_buffer("mask"), x, x * self.steps)
        y: torch.Tensor = self.last(self.linear(x).to(torch.bfloat16))
        return y


def test_tensors_of_every_dtype_come_back(tmp_path: Path) -> None:
    nested = nest(_Counting(), torch.zeros(2, 4), {"small": Level({"linear": 3})})
    nested.save(tmp_path / "net.nest")
    loaded = load(tmp_path / "net.nest")
    assert _same(stored_tensors(nested), stored_tensors(loaded))
    trained = {name: p.requires_grad for name, p in loaded.shared.named_parameters()}
    assert not trained["steps"]
    assert trained["last.weight"]


def test_the_same_network_is_the_same_bytes(
    nested: NestedModel, saved: Path, tmp_path: Path
) -> None:
    nested.save(tmp_path / "again.nest")
    load(saved).save(tmp_path / "loaded.nest")
    assert (tmp_path / "again.nest").read_bytes() == saved.read_bytes()
    assert (tmp_path / "loaded.nest").read_bytes() == saved.read_bytes()


def test_the_same_code_makes_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = "import sys; from tests.golden import make; make.network().save(sys.argv[1])"
    # Another seed for the hashes of strings is another order of sets.
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "theirs.nest")],
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": "."},
    )
    make.network().save(tmp_path / "ours.nest")
    assert (tmp_path / "ours.nest").read_bytes() == (tmp_path / "theirs.nest").read_bytes()


def test_nothing_in_the_file_is_compressed_dated_or_pickled(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        infos = archive.infolist()
    assert [i.filename for i in infos] == ["manifest.json", "program.json", "tensors.safetensors"]
    assert {i.compress_type for i in infos} == {zipfile.ZIP_STORED}
    assert {i.date_time for i in infos} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_an_interrupted_save_leaves_the_old_file(
    nested: NestedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "net.nest"
    path.write_bytes(b"old")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        nested.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_of_another_dtype_than_its_program_is_not_saved(tmp_path: Path) -> None:
    nested = nested_perceptron().float()
    expected = r"'shared/first.weight': expected float64 of shape \[16, 6\], found float32"
    with pytest.raises(UsageError, match=expected):
        nested.save(tmp_path / "net.nest")
    assert not list(tmp_path.iterdir())


class _Clamped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, limit: float) -> torch.Tensor:
        y: torch.Tensor = self.linear(x).clamp(max=limit)
        return y


def test_a_program_that_could_not_be_read_again_is_not_saved(tmp_path: Path) -> None:
    nested = nest(_Clamped(), (torch.zeros(2, 4), float("inf")), {})
    with pytest.raises(UsageError, match=r"^cannot save the network: .*not JSON compliant"):
        nested.save(tmp_path / "net.nest")


class _Filled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        return y.masked_fill(y > 1, float("nan")).masked_fill(y < -1, float("-inf"))


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    nested = nest(_Filled(), torch.zeros(2, 4), {})
    nested.save(tmp_path / "net.nest")
    x = 10 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    found, expected = load(tmp_path / "net.nest")(x), nested(x)
    assert expected.isnan().any()
    assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))


def test_a_golden_file_gives_the_recorded_outputs() -> None:
    expected = load_file(_GOLDEN.with_suffix(".safetensors"))
    found = make.outputs(load(_GOLDEN))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_loading_needs_no_code_of_the_users_and_no_unpickling(tmp_path: Path) -> None:
    code = (
        "import sys, pickle, torch, nestedge\n"
        "def refuse(*args, **kwargs): raise SystemExit('forbidden call')\n"
        "pickle.loads = pickle.load = torch.load = torch.export.load = refuse\n"
        f"nested = nestedge.load({str(_GOLDEN)!r})\n"
        "with nested.at('small'): print(sorted(nested(torch.zeros(1, 3, 8, 8), "
        "{'place': torch.tensor([1])})))\n"
        "assert not any(name.startswith(('tests', 'benchmarks')) for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['logits', 'more']\n", done.stderr


# Everything below is about files that are not what they say.


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
        _manifest("format", to=2),
        r"manifest\.json: format 2, written by nestedge 0\.1\.0; nestedge .* reads format 1: upg",
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
    "example missing": (_tensor("examples/where.place", None), "'examples/where.place' is missing"),
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
        r"examples: expected \['image', 'where\.place'\], found \['image'\]",
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


@pytest.mark.parametrize(("change", "message"), _BAD.values(), ids=_BAD)
def test_a_wrong_file_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Entries], None], message: str
) -> None:
    entries, path = _entries(_GOLDEN), tmp_path / "bad.nest"
    change(entries)
    path.write_bytes(archive_bytes(entries))
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.nest: no such file$"):
        load(tmp_path / "no.nest")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02.", b"{}"], ids=repr)
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.nest"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"net\.nest: not a \.nest, which is a zip$"):
        load(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path, whole = tmp_path / "net.nest", _GOLDEN.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match=r"net\.nest: truncated or damaged: "):
        load(path)


def test_a_changed_byte_of_a_tensor_is_noticed(tmp_path: Path) -> None:
    path, content = tmp_path / "net.nest", bytearray(_GOLDEN.read_bytes())
    content[content.index(b"tensors.safetensors") + 12_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"tensors\.safetensors: truncated or damaged: Bad CRC"):
        load(path)


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.nest"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _entries(_GOLDEN).items():
            archive.writestr(name, content)
    with pytest.raises(FormatError, match=r"manifest\.json: compressed; a \.nest stores"):
        load(path)


def test_an_entry_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.nest"
    path.write_bytes(_GOLDEN.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("program.json", b"{}")
    with pytest.raises(FormatError, match=r"holds 'program\.json' twice$"):
        load(path)


def test_a_document_beyond_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nestfile.JSON_LIMIT == 256 * 2**20
    monkeypatch.setattr(nestfile, "JSON_LIMIT", 1000)
    with pytest.raises(FormatError, match=r"manifest\.json: expected at most 1000 bytes, found "):
        load(_GOLDEN)


def test_the_bomb_of_the_tests_would_go_off() -> None:
    with pytest.raises(pytest.fail.Exception, match="a pickle was executed"):
        pickle.loads(pickle.dumps(_Bomb()))  # noqa: S301


_SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_SETTINGS
@given(st.data())
def test_a_file_changed_in_one_byte_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path, content = tmp_path / "net.nest", bytearray(_GOLDEN.read_bytes())
    # The directory at the end, which no checksum covers, and anywhere.
    places = st.integers(len(content) - 300, len(content) - 1) | st.integers(0, len(content) - 1)
    content[data.draw(places)] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with contextlib.suppress(FormatError):
        assert load(path).levels == ("small", "medium", "full")


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
