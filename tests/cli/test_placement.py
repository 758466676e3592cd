from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from tests.fakes import DESCRIPTION, declare_plugins, fake_artifact, fake_build

LOG = "Replacing 1 out of 2 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 partitions"


@pytest.fixture(autouse=True)
def placing(site: Path) -> None:
    """Declares the runtime "fake", which says where it runs operators."""
    declare_plugins(
        site,
        group="nestedge.runtimes",
        entries={"fake": "tests.placement.test_folder:PlacingRuntime"},
    )


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["placement", *map(str, args)])


def test_shares_and_what_is_elsewhere_are_printed(tmp_path: Path) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    header = ["cell", "accelerator", "share", "of", "partitions", "elsewhere", "by"]
    assert lines[0].split() == header
    row = ["NPU", "90.0%", "MACs", "1", "1", "FULLY_CONNECTED", "fake", "of", "model.fake"]
    assert [line.split() for line in lines[1:]] == [
        ["full/fake-fp32", *row],
        ["small/fake-fp32", *row],
    ]


def test_json_has_every_operator(tmp_path: Path) -> None:
    fake_build(tmp_path, ["small"])
    document = json.loads(_run(tmp_path, "--json", "--accelerator", "DSP").stdout)
    (placement,) = document["placements"]
    assert document["untold"] == []
    assert placement["cell"] == "small/fake-fp32"
    assert (placement["accelerator"], placement["share"]) == ("DSP", 0.9)
    assert [operator["where"] for operator in placement["operators"]] == ["DSP", "CPU"]


@pytest.mark.parametrize(("share", "code"), [("0.9", 0), ("0.91", 4), ("1.5", 2)])
def test_too_little_on_the_accelerator_exits_4(tmp_path: Path, share: str, code: int) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--require", share)
    assert result.exit_code == code
    assert result.stderr.count("\n") == (code != 0)
    if code == 4:
        assert "full/fake-fp32" in result.stdout
        assert "small/fake-fp32: 90.0% of MACs on NPU, elsewhere 1 FULLY_" in result.stderr


def test_a_log_of_another_machine_is_read(tmp_path: Path) -> None:
    fake_build(tmp_path / "dist", ["small"])
    log = tmp_path / "phone.log"
    log.write_text(LOG)
    result = _run(tmp_path / "dist", "--log", log, "--require", 0.5)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:5] == (
        ["small/fake-fp32", "GPU", "50.0%", "operators", "1"]
    )
    log.write_text("nothing")
    assert _run(tmp_path / "dist", "--log", log).exit_code == 2


def test_a_log_is_of_one_artifact(tmp_path: Path) -> None:
    fake_build(tmp_path)
    result = _run(tmp_path, "--log", tmp_path / "phone.log")
    assert result.exit_code == 2
    assert "has 2 artifacts, and a log is of one: name its folder, as in " in result.stderr


def test_what_is_not_known_is_printed_with_the_reason(tmp_path: Path) -> None:
    fake_artifact(tmp_path, replace(DESCRIPTION, runtime="engine"))
    result = _run(tmp_path)
    assert result.exit_code == 0
    line = result.stdout.splitlines()[1]
    assert line.split()[:4] == ["small/engine-fp32", "-", "-", "-"]
    assert line.endswith("its engine is built on the device: give the log of that build by --log")
    # Not even a share of 0 is known of it.
    assert _run(tmp_path, "--require", 0).exit_code == 4
    (untold,) = json.loads(_run(tmp_path, "--json").stdout)["untold"]
    assert untold["cell"] == "small/engine-fp32"


def test_an_unknown_runtime_exits_2(tmp_path: Path) -> None:
    fake_build(tmp_path, ["small"])
    result = _run(tmp_path, "--runtime", "fakke")
    assert result.exit_code == 2
    assert "no runtime 'fakke'" in result.stderr
