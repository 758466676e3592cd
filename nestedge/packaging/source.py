"""Where a repository is: a folder, or a web server. The only network access is here."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote, urlsplit

from nestedge.errors import NestedgeError, UsageError

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0


class Source(Protocol):
    """A repository to read from."""

    def chunks(self, path: str, *, limit: int) -> Iterator[bytes]:
        """The content of a file, piece by piece, and no further than one byte past the limit.

        Args:
            path: below the repository, its parts separated by "/".
            limit: bytes that the file should have at most.

        Raises:
            FileNotFoundError: there is no such file.
            NestedgeError: a server did not answer, or refused.
        """
        ...


def open_source(source: str) -> Source:
    """The source that a path or an URL names; nothing is read yet.

    Raises:
        UsageError: it is a URL of another scheme than file, http and https, or has parts that the
            address of a folder has not.
    """
    if "://" not in source:
        return FolderSource(Path(source))
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise UsageError(f"{source!r}: not a URL: {error}") from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderSource(Path(urllib.request.url2pathname(parts.path)))
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"{source!r}: expected a folder, file:///..., http://... or https://...")
    user, _, host = parts.netloc.rpartition("@")
    # Without what may be a password.
    address = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    if not host or user or parts.query or parts.fragment:
        raise UsageError(f"{address}: expected scheme://host/folder, with no user, '?' or '#'")
    return WebSource(address)


@dataclass(frozen=True)
class FolderSource:
    """A repository in a folder."""

    folder: Path

    def chunks(self, path: str, *, limit: int) -> Iterator[bytes]:
        """As `Source.chunks`."""
        try:
            with (self.folder / path).open("rb") as file:
                yield from _bounded(file, limit)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(str(error)) from error

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class WebSource:
    """A repository on a web server.

    Attributes:
        address: of its folder, without a slash at the end.
        timeout_s: how long the server may keep silent.
    """

    address: str
    timeout_s: float = _TIMEOUT_S

    def chunks(self, path: str, *, limit: int) -> Iterator[bytes]:
        """As `Source.chunks`."""
        url = f"{self.address}/{quote(path)}"
        request = urllib.request.Request(url, headers={"User-Agent": "nestedge"})
        opener = urllib.request.build_opener(_SameScheme)
        try:
            with opener.open(request, timeout=self.timeout_s) as response:
                yield from _bounded(response, limit)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(url) from error
            raise NestedgeError(f"{url}: HTTP status {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise NestedgeError(f"{url}: no answer: {error.reason}") from error
        except (OSError, HTTPException) as error:
            reason = " ".join(str(error).split())
            raise NestedgeError(f"{url}: the connection broke: {reason}") from error

    def __str__(self) -> str:
        return self.address


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http, nor to a file."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != req.type:
            raise NestedgeError(
                f"{req.full_url}: refused to be sent on to {newurl}, of another scheme; if that is "
                "right, give its address"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _bounded(file: IO[bytes] | HTTPResponse, limit: int) -> Iterator[bytes]:
    left = limit + 1
    while left > 0:
        try:
            chunk = file.read(min(left, _CHUNK))
        except IncompleteRead as error:
            # What is missing shows in the hash, as it does where a file was cut short.
            chunk, left = error.partial, 0
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
