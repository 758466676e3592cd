from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import devices, main
from nestedge.devices.detection import detect
from nestedge.devices.files import known_ids
from nestedge.devices.library import load_profile
from nestedge.devices.profile import DeviceProfile
from tests.devices.test_files import BOARD


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["devices", *map(str, args)])


def _lines(result: Result) -> list[str]:
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_without_a_verb_the_help_is_printed() -> None:
    result = _run()
    assert result.exit_code == 0
    assert "List the known devices" in result.stdout


def test_the_list_has_every_device_with_each_runtime() -> None:
    result = _run("list")
    assert result.exit_code == 0
    lines = _lines(result)
    assert lines[0] == "id name runtime precisions"
    assert "pixel-8 Google Pixel 8 tflite fp32 fp16 int8" in lines
    targets = [target for device in known_ids() for target in load_profile(device).targets]
    assert len(lines) == 1 + len(targets)


def test_the_list_as_json_has_whole_profiles() -> None:
    profiles = json.loads(_run("list", "--json").stdout)
    assert [profile["id"] for profile in profiles] == list(known_ids())
    assert profiles[0]["gpu"]["compute_capability"]["value"] == "8.7"


@pytest.mark.parametrize("device", known_ids())
def test_every_figure_is_shown_with_its_source(device: str) -> None:
    result = _run("show", device)
    assert result.exit_code == 0
    lines = _lines(result)
    profile = load_profile(device)
    for name, figure in profile.figures.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.endswith(f"{figure.confidence} {figure.source}")
    for target in profile.targets:
        assert any(
            line.startswith(f"{target.runtime} ") and line.endswith(target.source) for line in lines
        )


@pytest.mark.parametrize("device", known_ids())
def test_what_is_computed_at_once_is_shown_with_its_source(device: str) -> None:
    lines = _lines(_run("show", device))
    shown = [
        f"{target.runtime} {precision} {known.value} {known.confidence} {known.source}"
        for target in load_profile(device).targets
        for precision, known in target.multiples.items()
    ]
    start = lines.index("runtime precision outputs at once confidence source") + 1
    assert lines[start : start + len(shown)] == shown
    assert lines[start + len(shown)] == ""


def test_a_device_of_which_no_multiple_is_known_shows_none(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BOARD)
    lines = _lines(_run("show", path))
    assert not any("at once" in line for line in lines)
    assert lines[3] == "tflite 2.3.0 int8 high tried"
    assert lines[4:6] == ["", "figure value confidence source"]


def test_numbers_and_lists_are_shown_as_people_write_them() -> None:
    lines = _lines(_run("show", "raspberry-pi-5"))
    assert any(line.startswith("cpu.clock_ghz 2.4 high ") for line in lines)
    assert any(line.startswith("cpu.isa neon, fp16, dotprod high ") for line in lines)
    assert "known by compatible: raspberrypi,5-model-b" in lines


def test_a_profile_of_ones_own_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(BOARD)
    result = _run("show", path, "--json")
    assert json.loads(result.stdout)["memory"]["total_mb"]["value"] == 512


def test_an_unknown_device_exits_2() -> None:
    result = _run("show", "pixel-9")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no device 'pixel-9'; known are [")
    assert result.stderr.endswith("did you mean 'pixel-8'?\n")


def test_a_machine_that_is_no_known_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "matching_profile", lambda: None)
    result = _run("detect")
    assert result.exit_code == 0
    assert _lines(result)[-1] == f"none of the known devices: {', '.join(known_ids())}"
    assert json.loads(_run("detect", "--json").stdout)["known_as"] is None


def test_a_machine_that_is_a_known_device_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "matching_profile", lambda: "raspberry-pi-5")
    assert _lines(_run("detect"))[-1].startswith("this is raspberry-pi-5: ")
    document = json.loads(_run("detect", "--json").stdout)
    assert document["known_as"] == "raspberry-pi-5"
    assert document["profile"]["id"] == "local"


def test_a_machine_without_a_runtime_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare() -> DeviceProfile:
        found = detect(tmp_path)
        return DeviceProfile(found.id, found.name, found.kind, (), found.figures, found.match)

    monkeypatch.setattr(devices, "detect", bare)
    result = _run("detect")
    assert result.exit_code == 0
    assert "no runtime is installed: pip install 'nestedge[onnx]'" in result.stdout
