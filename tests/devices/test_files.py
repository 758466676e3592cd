from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest

from nestedge.devices.files import (
    known_ids,
    known_profile,
    match_profile,
    profiles_folder,
    read_profile,
)
from nestedge.errors import FormatError, NestedgeError, UsageError

DOCS = Path(__file__).parents[2] / "docs" / "devices.md"

BOARD = """\
id = "board"
name = "A board"
kind = "linux"

[memory]
total_mb = { value = 512, source = "its label", confidence = "high" }

[[runtime]]
name = "tflite"
versions = ["2.3.0"]
precisions = ["int8"]
source = "tried"
confidence = "high"
"""


def _write(folder: Path, text: str, name: str = "board.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_is_a_profile(tmp_path: Path) -> None:
    profile = read_profile(_write(tmp_path, BOARD))
    assert profile.figures["memory.total_mb"].value == 512
    assert profile.targets[0].precisions == ("int8",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('source = "its label", ', "", "memory.total_mb.source: missing", id="source"),
        pytest.param(
            'id = "board"',
            'id = "bored"',
            "id: expected 'board', as the file, found 'bored'",
            id="id",
        ),
        pytest.param(
            'source = "tried"',
            'source = ""',
            "runtime[0].source: expected a text, found none",
            id="empty source of a runtime",
        ),
        pytest.param(
            '"A board"', "2024-01-01", "name: expected no date or time, found 2024-01-01", id="date"
        ),
        pytest.param(
            '["int8"]',
            "[12:30:00]",
            "runtime[0].precisions[0]: expected no date or time, found 12:30:00",
            id="time",
        ),
        pytest.param("[memory]", "[memory", "not TOML: ", id="not TOML"),
        pytest.param('kind = "linux"', 'id = "board"', "not TOML: ", id="key twice"),
        pytest.param(
            "value = 512", "value = nan", "memory.total_mb.value: expected an i", id="nan"
        ),
    ],
)
def test_a_file_that_is_no_profile_is_refused_by_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in BOARD
    path = _write(tmp_path, BOARD.replace(old, new))
    with pytest.raises(FormatError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_profile(path)


def test_a_profile_without_a_runtime_is_refused(tmp_path: Path) -> None:
    text = BOARD[: BOARD.index("[[runtime]]")]
    with pytest.raises(FormatError, match=r"board\.toml: runtime: missing$"):
        read_profile(_write(tmp_path, text))
    with pytest.raises(FormatError, match=r"runtime: expected at least one \[\[runtime\]\]$"):
        read_profile(_write(tmp_path, f"runtime = []\n{text}"))


def test_a_profile_may_not_be_called_local(tmp_path: Path) -> None:
    path = _write(tmp_path, BOARD.replace('"board"', '"local"'), "local.toml")
    with pytest.raises(FormatError, match="'local' is the machine that detects itself; rename it"):
        read_profile(path)


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match=r"board\.toml: not TOML: "):
        read_profile(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"board\.toml: no such file$"):
        read_profile(tmp_path / "board.toml")


@pytest.mark.parametrize("device", known_ids())
def test_every_known_profile_is_one(device: str) -> None:
    profile = known_profile(device)
    assert profile.id == device
    assert profile.match


def test_three_devices_are_known() -> None:
    assert {"jetson-orin-nano-8gb", "pixel-8", "raspberry-pi-5"} <= {*known_ids()}


def test_no_device_can_be_two_known_ones() -> None:
    for one, other in combinations((known_profile(device).match for device in known_ids()), 2):
        shared = one.keys() & other.keys()
        assert not shared or any(set(one[key]).isdisjoint(other[key]) for key in shared)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(
            {"compatible": ("nvidia,p3768-0000+p3767-0003", "nvidia,p3767-0003")},
            "jetson-orin-nano-8gb",
            id="one of the ids",
        ),
        pytest.param(
            {"compatible": ("nvidia,p3767-0004", "nvidia,tegra234")}, None, id="the 4 GB module"
        ),
        pytest.param(
            {"ro.soc.model": ("Tensor G3",), "ro.product.device": ("shiba",)},
            "pixel-8",
            id="all keys",
        ),
        pytest.param(
            {"ro.soc.model": ("Tensor G3",), "ro.product.device": ("husky",)},
            None,
            id="only one of two keys fits: the Pro",
        ),
        pytest.param({"ro.soc.model": ("Tensor G3",)}, None, id="only one of two keys said"),
        pytest.param({}, None, id="nothing said"),
    ],
)
def test_a_device_is_known_by_all_that_it_must_say(
    said: Mapping[str, tuple[str, ...]], expected: str | None
) -> None:
    assert match_profile(said) == expected


@pytest.mark.parametrize("place", ["package/device_profiles", "device_profiles"])
def test_the_folder_is_in_the_package_or_beside_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / place).mkdir()
    assert profiles_folder(tmp_path / "package") == tmp_path / place


def test_the_folder_in_the_package_comes_first(tmp_path: Path) -> None:
    (tmp_path / "package" / "device_profiles").mkdir(parents=True)
    (tmp_path / "device_profiles").mkdir()
    assert profiles_folder(tmp_path / "package") == tmp_path / "package" / "device_profiles"


def test_without_the_folder_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NestedgeError, match="no device_profiles in it or beside it: reinstall"):
        profiles_folder(tmp_path)


def test_the_example_of_the_documentation_is_a_profile(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(id = .*?)```", DOCS.read_text(), re.DOTALL)
    assert example is not None
    profile = read_profile(_write(tmp_path, example.group(1), "my-board.toml"))
    assert profile.id == "my-board"
