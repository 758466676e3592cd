"""`nestedge train`: from a recipe to a .nest."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch.multiprocessing.spawn import spawn

from nestedge.cli import main
from nestedge.cli.train import _shown
from nestedge.nestfile import load
from nestedge.training import Progress
from tests.training.test_image_folders import as_folder, split_content

RECIPE = """
[model]
factory = "network_of_train:{factory}"
[levels]
small = 0.5
full = 1.0
[data]
{data}
calibration = 8
augmentation = "crop-flip"
[method]
name = "sandwich"
[optimizer]
name = "SGD"
lr = 0.05
[schedule]
name = "cosine"
[training]
epochs = {epochs}
"""
DIGITS = 'kind = "digits"\nbatch = 32\nlimit = 128'
FOLDER = 'kind = "folder"\nroot = "elsewhere"\nbatch = 4'
NETWORK = """
from tests.training.test_recipes import small_network, two_classes
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder beside recipes, where commands run."""
    (tmp_path / "network_of_train.py").write_text(NETWORK)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def write_recipe(
    folder: Path, *, data: str = DIGITS, epochs: int = 2, factory: str = "small_network"
) -> str:
    path = folder.parent / "recipe.toml"
    path.write_text(RECIPE.format(data=data, epochs=epochs, factory=factory))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments, "-o", "net.nest"])


def test_a_recipe_is_trained_and_told_epoch_by_epoch(folder: Path) -> None:
    threads = torch.get_num_threads()
    result = run(write_recipe(folder), "--threads", "1")
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == threads
    lines = result.stderr.splitlines()
    assert lines[0] == (
        "checkpoints are in net.nest.checkpoints; interrupted, the same command goes on from there"
    )
    assert lines[1] == "running the code of network_of_train:small_network"
    assert lines[2].startswith("128 images to train with, 450 to test")
    pattern = r"epoch {}/2  loss \d\.\d+  rate \S+  \d+ s left  small \d+\.\d %, full \d+\.\d %"
    assert all(re.fullmatch(pattern.format(n + 1), line) for n, line in enumerate(lines[3:]))
    assert len(lines) == 5
    assert "small  " in result.stdout
    assert "net.nest: levels small, full; 'nestedge inspect net.nest'" in result.stdout
    # Checkpoints that nobody has asked for are gone.
    assert [path.name for path in folder.iterdir()] == ["net.nest"]
    assert run_inspect() == 0


def run_inspect() -> int:
    return CliRunner().invoke(main, ["inspect", "net.nest"]).exit_code


def test_as_json_it_is_one_document_and_nothing_else(folder: Path) -> None:
    result = run(write_recipe(folder), "--json", "--checkpoints", "kept", "--every", "3")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert found["file"] == "net.nest"
    assert found["bytes"] == (folder / "net.nest").stat().st_size
    assert list(found["levels"]) == ["full", "small"]
    assert 0 <= found["levels"]["full"]["accuracy_percent"] <= 100
    assert (found["epochs"], found["skipped"]) == (2, [])
    assert {path.name for path in (folder / "kept").iterdir()} == {"last.pt", "best.pt"}
    before = (folder / "net.nest").read_bytes()
    again = run(write_recipe(folder), "--checkpoints", "kept")
    assert again.stderr.splitlines()[0] == "going on from kept"
    assert "epoch" not in again.stderr
    assert (folder / "net.nest").read_bytes() == before


def test_a_training_that_was_interrupted_goes_on_to_the_same_bytes(folder: Path) -> None:
    recipe = write_recipe(folder, data=DIGITS.replace("128", "64"), epochs=30)
    # A process that a shell has started in the background ignores Ctrl-C, and its children do too.
    interruptible = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('nestedge', run_name='__main__')"
    )
    arguments = ["train", recipe, "-o", "net.nest", "--every", "1"]
    command = [sys.executable, "-c", interruptible, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    last = folder / "net.nest.checkpoints" / "last.pt"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not last.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.endswith("error: interrupted\n")
    assert not (folder / "net.nest").exists()
    result = run(recipe)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("going on from net.nest.checkpoints")
    found = (folder / "net.nest").read_bytes()
    assert not last.parent.exists()
    assert run(recipe).exit_code == 0
    assert (folder / "net.nest").read_bytes() == found


def test_the_data_can_be_somewhere_else_and_broken_images_are_named(folder: Path) -> None:
    images = as_folder({**split_content(), "test/dog/00.png": b"text"}, folder / "images")
    recipe = write_recipe(folder, data=f"{FOLDER}\nskip_broken = true", factory="two_classes")
    result = run(recipe, "--data", str(images), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["skipped"] == ["test/dog/00.png"]
    assert load("net.nest").card.labels == ("cat", "dog")


WRONG: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a key": (f"{DIGITS}\nsise = 3", (), r"recipe\.toml: data\.sise: unknown; expected kind"),
    "a kind": ('kind = "digit"\nbatch = 2', (), r"data\.kind: expected .*, found \"digit\""),
    "no folder": (FOLDER, (), r"elsewhere: no such folder or \.tar"),
    "no data": (FOLDER, ("--data", "none"), r"none: no such folder or \.tar"),
    "a device": (DIGITS, ("--device", "gpu"), "--device gpu: torch cannot use it"),
    "an output": (DIGITS, ("-o", "none/net.nest"), "there is no folder none"),
    "steps": (DIGITS, ("--every", "0"), "'--every': 0 is not in the range"),
}


@pytest.mark.parametrize(("data", "options", "message"), list(WRONG.values()), ids=list(WRONG))
def test_what_is_wrong_is_one_line_and_exit_2(
    folder: Path, data: str, options: tuple[str, ...], message: str
) -> None:
    arguments = [write_recipe(folder, data=data), "-o", "net.nest", *options]
    result = CliRunner().invoke(main, ["train", *arguments, "--json"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert re.search(message, result.stderr), result.stderr
    assert list(folder.iterdir()) == []


def test_without_tensorboard_nothing_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = run(write_recipe(folder), "--tensorboard", "board")
    assert result.exit_code == 2
    assert "pip install 'nestedge[tensorboard]'" in result.stderr
    assert list(folder.iterdir()) == []


def test_on_a_terminal_one_line_says_how_far_an_epoch_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    common = {"epoch": 1, "epochs": 2, "loss": 0.5, "seconds": 1.0, "learning_rate": 0.1}
    begun = Progress(**common, step=1, steps=2, seconds_left=7260.0)  # type: ignore[arg-type]
    ended = replace(begun, step=2, seconds_left=30.0)
    with _shown() as show:
        show(begun)
        show(ended)
        show(replace(ended, accuracies={"small": 50.0}))
    _, first, second, last = capsys.readouterr().err.split("\r\x1b[K")
    assert first == "epoch 1/2  loss 0.500  rate 0.1  2 h 1 min left  step 1/2"
    assert second.endswith("step 2/2")
    assert last == "epoch 1/2  loss 0.500  rate 0.1  30 s left  small 50.0 %\n"
    with _shown() as show:
        show(begun)
    assert capsys.readouterr().err.endswith("step 1/2\n")


def _worker(rank: int, recipe: str, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="localhost",
        MASTER_PORT=str(port),
    )
    result = run(recipe, "--json", "--device", "cpu")
    Path(f"{rank}.txt").write_text(f"{result.exit_code}{result.stdout}{result.stderr}")


def test_processes_of_torchrun_train_together_and_the_first_one_writes(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = (write_recipe(folder, epochs=1), port, str(folder))
    spawn(_worker, arguments, nprocs=2)  # type: ignore[no-untyped-call]
    first, second = ((folder / f"{rank}.txt").read_text() for rank in range(2))
    assert first.startswith('0{"bytes"'), first
    assert second == "0"
    assert {path.name for path in folder.iterdir()} == {"net.nest", "0.txt", "1.txt"}
