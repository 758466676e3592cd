from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nestedge.cli import main
from tests.fakes import fake_build
from tests.matrices import device, fake_matrix


def _run(*args: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, args)])


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    artifacts = fake_build(tmp_path / "dist")
    fake_matrix(tmp_path / "dist", artifacts, devices=[device("local", {"fake": ["fp32"]})])
    return tmp_path / "dist"


def test_the_page_is_written_where_it_is_asked_for(dist: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    result = _run(dist, "-o", output)
    assert result.exit_code == 0
    assert result.stdout == f"{output}: {output.stat().st_size:,} bytes, opens in any browser\n"
    assert output.read_text().startswith("<!DOCTYPE html>")
    assert 'class="pick' not in output.read_text()


def test_json_names_the_file(dist: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    result = _run(dist, "-o", output, "--json")
    assert json.loads(result.stdout) == {"file": str(output), "bytes": output.stat().st_size}


def test_limits_make_a_budget_to_pick_for(dist: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    limits = ("--latency", "8ms", "--size", "40kB", "--memory", "1kB", "--min-accuracy", "0")
    assert _run(dist, "-o", output, *limits).exit_code == 0
    text = "latency 8 ms and size 40 kB and memory 1 kB and accuracy 0 %"
    assert text in output.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "8"], "error: duration '8': expected a number and a unit of us, ms, s"),
        (["--min-accuracy", "101"], "error: accuracy must be in 0..100 percent, got 101"),
    ],
)
def test_an_impossible_budget_exits_2_and_writes_nothing(
    dist: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = _run(dist, "-o", tmp_path / "page.html", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert not (tmp_path / "page.html").exists()


def test_a_folder_that_no_build_made_exits_2(tmp_path: Path) -> None:
    result = _run(tmp_path, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    assert result.stderr.endswith("no build.json: make one with 'nestedge build'\n")


def test_a_changed_model_exits_6(dist: Path, tmp_path: Path) -> None:
    (dist / "small/fake-fp32/model.fake").write_bytes(b"other")
    result = _run(dist, "-o", tmp_path / "page.html")
    assert result.exit_code == 6
    assert result.stderr.startswith("error: small/fake-fp32: model.fake: expected sha256 ")


def test_without_jinja2_the_error_says_what_to_type(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [name for name in sys.modules if name.startswith(("nestedge.report", "jinja2"))]
    for name in (*loaded, "nestedge.cli.report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = _run(dist, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    expected = "error: 'nestedge report' needs jinja2: pip install 'nestedge[report]'\n"
    assert result.stderr == expected
