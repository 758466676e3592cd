"""nestedge.redirection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nestedge.redirection import output_to, silenced


def test_what_is_written_inside_goes_to_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "log").open("wb") as file, output_to(file):
        os.write(1, b"to stdout\n")
        os.write(2, b"to stderr\n")
    os.write(1, b"behind\n")

    assert sorted((tmp_path / "log").read_text().splitlines()) == ["to stderr", "to stdout"]
    assert capfd.readouterr() == ("behind\n", "")


def test_what_is_written_inside_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        os.write(1, b"to stdout\n")
        os.write(2, b"to stderr\n")
    os.write(1, b"behind\n")

    assert capfd.readouterr() == ("behind\n", "")


def test_an_error_inside_gives_the_output_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), silenced():
        raise ValueError("no")
    os.write(1, b"behind\n")

    assert capfd.readouterr() == ("behind\n", "")
