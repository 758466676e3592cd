from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestedge import nestfile
from nestedge.errors import FormatError, UsageError
from nestedge.nestfile import load

_GOLDEN = Path(__file__).parent / "golden" / "format1.nest"


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


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
