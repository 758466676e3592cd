from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nestedge.errors import FormatError, UsageError
from nestedge.importing import load_plain, read_checkpoint
from nestedge.importing.checkpoint import match_names, match_tied


def test_the_same_name_comes_before_a_similar_one() -> None:
    given = ["a.conv.weight", "a.conv.conv.weight", "module.b.weight", "layers.0.0.weight"]
    assert match_names(["a.conv.weight", "b.weight", "layers.0.weight"], given) == {
        "a.conv.weight": "a.conv.weight",
        "b.weight": "module.b.weight",
    }


@pytest.mark.parametrize(
    ("wanted", "given", "message"),
    [
        (["a.w"], ["a.a.w", "module.a.w"], r"'a\.w' could be any of \['a\.a\.w', 'module\.a\.w'\]"),
        (["a.w", "a.a.w"], ["module.a.w"], r"'a\.w' and 'a\.a\.w' both match 'module\.a\.w'"),
    ],
    ids=["several", "twice"],
)
def test_names_that_are_not_clear_are_refused(
    wanted: list[str], given: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        match_names(wanted, given)


def test_a_tied_tensor_may_have_either_of_its_names() -> None:
    aliases = {"head.weight": "table.weight"}
    for given in (["head.weight"], ["table.weight"], ["head.weight", "table.weight"]):
        found, unread = match_tied(["table.weight"], [*given, "other"], aliases)
        assert found["table.weight"] in given
        assert unread == ["other"]


def test_a_tied_tensor_that_is_stored_once_is_whole() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model.register_module("again", model[0])
    load_plain(model, {"0.weight": torch.ones(3, 3), "1.weight": torch.zeros(3, 3)})
    assert torch.equal(model.state_dict()["again.weight"], torch.ones(3, 3))
    with pytest.raises(UsageError, match=r"the checkpoint does not fit the model: it lacks '1\."):
        load_plain(model, {"0.weight": torch.ones(3, 3)})


def _not_safetensors(path: Path) -> None:
    path.write_bytes(b"nothing of the kind")


def _cut_off(path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])


BROKEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "safetensors": ("a.safetensors", _not_safetensors, "a.safetensors: not safetensors"),
    "cut off": ("a.pt", _cut_off, r"torch.load\(weights_only=True\) refuses it"),
    "empty": ("a.pt", lambda path: torch.save({}, path), "expected tensors by name"),
}


@pytest.mark.parametrize(("name", "make", "message"), list(BROKEN.values()), ids=list(BROKEN))
def test_a_damaged_file_is_one_clear_error(
    name: str, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(FormatError, match=message):
        read_checkpoint(tmp_path / name)


def test_safetensors_and_pickled_tensors_are_read_alike(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.int64)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": state, "optimizer": {}}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.ckpt"):
        found = read_checkpoint(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in state.items())
