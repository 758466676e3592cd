"""`nestedge import`."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import nn

from nestedge.cli import VERBS, Verb, main
from nestedge.errors import UsageError
from nestedge.importing.files import read_mask_file
from nestedge.nestfile import load
from tests.importing.exactness import assert_exact

FACTORIES = """
from torch import nn

from tests.importing.test_matformer import Mlp, Transformer
from tests.importing.test_slimmable import Plain
from tests.importing.test_supernet import Network

def perceptron():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

def transformer():
    return Transformer((16, 16), Mlp)

def slimmable():
    return Plain()

def supernet():
    return Network()

def broken():
    raise KeyError("no such weights")

def nothing():
    return 3

number = 4
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with factories in factories_of_users.py."""
    (tmp_path / "factories_of_users.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(VERBS, "import", Verb("", extra="convert"))
    return tmp_path


def run(checkpoint: str, factory: str, example: str, *options: str) -> Result:
    given = ["--model", f"factories_of_users:{factory}", "--example", example, "-o", "net.nest"]
    return CliRunner().invoke(main, ["import", checkpoint, *given, *options])


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "wrapped.pth"])
def test_a_pruned_checkpoint_becomes_a_nest_of_its_zeros(name: str) -> None:
    model = perceptron()
    with torch.no_grad():
        model.get_parameter("2.weight")[:, :5] = 0
    if name.endswith("safetensors"):
        save_file(model.state_dict(), name)
    else:
        state: Mapping[str, object] = model.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if "wrapped" in name else state, name)
    result = run(name, "perceptron", "1,6")
    assert result.exit_code == 0, result.output
    assert "running the code of factories_of_users:perceptron" in result.stderr
    assert result.stdout == "net.nest: levels sparse; 'nestedge inspect net.nest' shows them\n"
    assert_exact(load("net.nest"), "sparse", X, model(X).detach())


@pytest.mark.parametrize("name", ["masks.npz", "masks.safetensors"])
def test_masks_come_from_a_file(name: str) -> None:
    model = perceptron()
    torch.save(model.state_dict(), "weights.pt")
    mask = np.random.default_rng(0).random((16, 6)) < 0.5
    masks = {"core/0.weight": mask, "more/0.weight": mask | (np.arange(6) > 3)}
    if name.endswith("npz"):
        np.savez(name, **masks)
    else:
        save_file({n: torch.from_numpy(m) for n, m in masks.items()}, name)
    result = run("weights.pt", "perceptron", "1,6", "--masks", name, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["levels"] == ["core", "more"]
    model.get_parameter("0.weight").data *= torch.from_numpy(mask)
    assert_exact(load("net.nest"), "core", X, model(X).detach())


def _slimmable() -> tuple[Mapping[str, torch.Tensor], object]:
    from tests.importing.test_slimmable import Slimmable

    return Slimmable().state_dict(), {"small": 0.25, "medium": 0.5, "full": 1.0}


def _matformer() -> tuple[Mapping[str, torch.Tensor], object]:
    from tests.importing.test_matformer import Mlp, Transformer

    return Transformer((16, 16), Mlp).state_dict(), {"small": 4, "mixed": [0.25, 8], "full": 1.0}


def _supernet() -> tuple[Mapping[str, torch.Tensor], object]:
    from tests.importing.test_supernet import supernet

    state = {name: tensor.float() for name, tensor in supernet(matrices=True).items()}
    return state, {"small": {"d": [1, 2], "e": 3}, "full": {"d": 3, "e": [6] * 6, "ks": 5}}


FORMATS: dict[str, tuple[Callable[[], tuple[Mapping[str, torch.Tensor], object]], str]] = {
    "slimmable": (_slimmable, "1,3,9,9"),
    "matformer": (_matformer, "1,5,8"),
    "supernet": (_supernet, "1,3,16,16"),
}


@pytest.mark.parametrize("kind", list(FORMATS))
def test_levels_come_from_a_json_file(kind: str, folder: Path) -> None:
    make, example = FORMATS[kind]
    state, levels = make()
    torch.save(dict(state), "weights.pt")
    (folder / "levels.json").write_text(json.dumps(levels))
    factory = {"matformer": "transformer"}.get(kind, kind)
    result = run("weights.pt", factory, example, "--format", kind, "--levels", "levels.json")
    assert result.exit_code == 0, result.output
    assert list(load("net.nest").levels) == list(levels)  # type: ignore[call-overload]
    assert ("recalibrate" in result.stdout) == (kind == "supernet")


class Code:
    """Something that runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("was-here"),)  # type: ignore[return-value]


def _save(content: object) -> None:
    torch.save(content, "weights.pt")


WRONG: dict[str, tuple[Sequence[str], str]] = {
    "no file": (["none.pt", "perceptron", "1,6"], "none.pt: no such file"),
    "ending": (["factories_of_users.py", "perceptron", "1,6"], "expected an ending of"),
    "module": (["weights.pt", "x", "1,6", "--model", "nowhere:x"], "nowhere:x: its code failed"),
    "no colon": (["weights.pt", "x", "1,6", "--model", "x"], "package.module:function, found 'x'"),
    "function": (["weights.pt", "absent", "1,6"], "has no function 'absent'"),
    "no function": (["weights.pt", "number", "1,6"], "has no function 'number'"),
    "failing": (["weights.pt", "broken", "1,6"], "its code failed: KeyError: 'no such weights'"),
    "no module": (["weights.pt", "nothing", "1,6"], "expected a torch.nn.Module, found int"),
    "example": (["weights.pt", "perceptron", "1,x"], "expected an example as 1,3,32,32"),
    "dtype": (["weights.pt", "perceptron", "1,6:int3"], "expected an example as 1,3,32,32"),
    "other model": (["weights.pt", "slimmable", "1,3,9,9"], "does not fit the model: it lacks"),
    "no zeros": (["weights.pt", "perceptron", "1,6"], "no weight of the model is zero"),
    "no levels": (["weights.pt", "perceptron", "1,6", "--format", "slimmable"], "needs --levels"),
    "masks": (
        ["weights.pt", "perceptron", "1,6", "--format", "supernet", "--masks", "x"],
        "--masks is for --format masks",
    ),
    "levels": (["weights.pt", "perceptron", "1,6", "--levels", "x"], "for masks give --masks"),
    "list": (
        ["weights.pt", "slimmable", "1,3,9,9", "--format", "slimmable", "--levels", "lists.json"],
        "level 'small': expected a multiplier as 0.5 or 1.0, found [1, 2]",
    ),
    "subnet": (
        ["weights.pt", "supernet", "1,3,16,16", "--format", "supernet", "--levels", "lists.json"],
        "lists.json: small: expected",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: Sequence[str], message: str, folder: Path
) -> None:
    _save(perceptron().state_dict())
    (folder / "lists.json").write_text('{"small": [1, 2]}')
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (folder / "net.nest").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Code(), "refuses it"),
        ({"state_dict": {"a": 3}}, "expected tensors by name"),
        ([torch.ones(1)], "found list"),
    ],
    ids=["code", "numbers", "a list"],
)
def test_a_checkpoint_with_something_else_than_tensors_is_refused_and_never_run(
    content: object, message: str, folder: Path
) -> None:
    if isinstance(content, Code):
        (folder / "weights.pt").write_bytes(pickle.dumps(content))
    else:
        _save(content)
    result = run("weights.pt", "perceptron", "1,6")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (folder / "was-here").exists()


def test_masks_of_which_only_some_have_a_level_are_refused(folder: Path) -> None:
    np.savez("masks.npz", **{"core/a": np.ones(1), "b": np.ones(1)})
    with pytest.raises(UsageError, match="expected 'level/tensor' for all masks, found 'b'"):
        read_mask_file(folder / "masks.npz")
