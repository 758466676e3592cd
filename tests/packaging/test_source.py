from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nestedge.errors import IntegrityError, NestedgeError, UsageError
from nestedge.packaging.fetching import fetch
from nestedge.packaging.source import FolderSource, WebSource, open_source
from tests.packaging.builds import CELLS, change, tree


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Odd(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self) -> None:
        if self.path.endswith("/silent"):
            self.rfile.read(1)
        elif self.path.endswith("/broken"):
            self.wfile.write(b"no HTTP\r\n\r\n")
        elif self.path.endswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"abc")
        elif self.path.endswith("/500"):
            self.send_error(500)
        else:
            target = {"same": "/short", "file": "file:///etc/hostname", "ftp": "ftp://x/y"}
            self.send_response(302)
            self.send_header("Location", target[self.path.rpartition("/")[2]])
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def _serve(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web(repo: Path) -> Iterator[str]:
    """The address of the repository on a web server."""
    yield from _serve(partial(_Files, directory=str(repo.parent)))


@pytest.fixture
def odd() -> Iterator[str]:
    """The address of a server that misbehaves."""
    yield from _serve(_Odd)


def test_a_web_server_gives_what_its_folder_has(repo: Path, web: str, tmp_path: Path) -> None:
    for name, end in (("net", "/repo"), ("again", "/repo/")):
        shipment = fetch(web + end, device="phone", destination=tmp_path / name)
        assert tree(tmp_path / name) == tree(repo / shipment.folder)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_what_a_web_server_gives_is_checked(
    repo: Path, web: str, tmp_path: Path, damage: str
) -> None:
    (path,) = repo.glob(f"phone-*/{CELLS[1]}/model.fake")
    change(path)
    if damage == "missing":
        path.unlink()
    found = {"changed": "expected sha256 .*, found", "missing": f"missing in {web}/repo; expected"}
    with pytest.raises(IntegrityError, match=rf"^{CELLS[1]}: model\.fake: {found[damage]}"):
        fetch(f"{web}/repo", device="phone", destination=tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_web_server_without_a_repository_is_refused(web: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^{web}/none: no index\.json, so no repository"):
        fetch(f"{web}/none", device="phone", destination=tmp_path / "net")


def _read(address: str, name: str, limit: int = 100) -> bytes:
    return b"".join(WebSource(address, timeout_s=0.2).chunks(name, limit=limit))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("silent", "no answer: timed out|connection broke: timed out"),
        ("broken", "connection broke"),
        ("500", "HTTP status 500"),
        ("file", "Redirection to url 'file:///etc/hostname' is not allowed"),
        ("ftp", "refused to be sent on to ftp://x/y, of another scheme"),
    ],
)
def test_a_server_that_misbehaves_is_one_line(odd: str, name: str, message: str) -> None:
    with pytest.raises(NestedgeError, match=rf"^{odd}/{name}: .*({message})") as caught:
        _read(odd, name)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_a_download_that_is_cut_short_gives_what_came(odd: str) -> None:
    assert _read(odd, "short") == b"abc"
    assert _read(odd, "short", limit=1) == b"ab"


def test_a_redirect_of_the_same_scheme_is_followed(odd: str) -> None:
    assert _read(odd, "same") == b"abc"


def test_a_server_that_is_not_there_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(NestedgeError, match=rf"^{address}/x: no answer: .*refused"):
            _read(address, "x")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("repo", FolderSource(Path("repo"))),
        ("/a b/repo", FolderSource(Path("/a b/repo"))),
        ("file:///a%20b/repo", FolderSource(Path("/a b/repo"))),
        ("file://localhost/repo", FolderSource(Path("/repo"))),
        ("http://host:8000/a/", WebSource("http://host:8000/a")),
        ("https://[::1]/a%20b", WebSource("https://[::1]/a%20b")),
    ],
)
def test_a_source_is_a_folder_or_a_web_server(source: str, expected: object) -> None:
    assert open_source(source) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ftp://host/repo", r"'ftp://host/repo': expected a folder, file:///"),
        ("file://host/repo", "expected a folder"),
        ("http:///repo", "expected scheme://host/folder"),
        ("https://me:secret@host/repo", "^https://host/repo: expected scheme://host/folder"),
        ("https://host/repo?token=1", "with no user, '?' or '#'"),
        ("https://host/repo#x", "with no user"),
        ("http://[::1/repo", "not a URL"),
    ],
)
def test_another_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")) as caught:
        open_source(source)
    assert "secret" not in str(caught.value)
