"""Where engines are built: this machine, or one that OpenSSH's client reaches.

A remote command ends with its exit status on stderr. Without it the connection broke: ssh's own
status 255 may be either's.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from nestedge.errors import MissingDependencyError, NestedgeError, UsageError

KILLED = 137
"""What a shell says of a program that signal 9 ended, as the kernel does that lacks memory."""

_STATUS = re.compile(r"^__rc=(\d+)$", re.MULTILINE)
_FOLDER = re.compile(r"/[\w./-]+")
_SSH_OPTIONS = (
    *("-o", "BatchMode=yes"),
    # Whatever the user's configuration says: a build runs what it finds there.
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "ConnectTimeout=10"),
    # A board that lost its power is missed within a minute, not within TCP's hours.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)


@dataclass(frozen=True)
class Finished:
    """What a command left.

    Attributes:
        status: of the shell that ran it; 137 where it was killed.
        output: stdout and stderr as they came.
    """

    status: int
    output: str


class Place(Protocol):
    """A machine that runs shell scripts."""

    @property
    def name(self) -> str:
        """As in "this machine" or "ssh://user@jetson"."""
        ...

    def run(self, script: str, *, folder: str = "/") -> Finished:
        """Runs a script of the POSIX shell in a folder.

        Raises:
            NestedgeError: the machine was not reached, or was lost on the way.
        """
        ...

    def folder(self) -> contextlib.AbstractContextManager[str]:
        """An empty folder, which is removed afterwards."""
        ...

    def put(self, files: Mapping[str, Path], folder: str) -> None:
        """Copies files into a folder, under other names.

        Raises:
            NestedgeError: they do not fit, or the machine was lost.
        """
        ...

    def get(self, name: str, folder: str, *, to: Path) -> bool:
        """Copies a file from a folder; False where it has none by that name."""
        ...


class Here:
    """This machine."""

    name = "this machine"

    def run(self, script: str, *, folder: str = "/") -> Finished:
        """Runs a script of the POSIX shell in a folder."""
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        # As a shell says it, so that a killed shell and a killed program are one case.
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Finished(status, done.stdout.decode(errors="replace"))

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """An empty folder, which is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="nestedge-") as folder:
            yield folder

    def put(self, files: Mapping[str, Path], folder: str) -> None:
        """Copies files into a folder.

        Raises:
            OSError: they do not fit.
        """
        for name, path in files.items():
            shutil.copyfile(path, Path(folder) / name)

    def get(self, name: str, folder: str, *, to: Path) -> bool:
        """Copies a file from a folder; False where it has none by that name."""
        found = Path(folder) / name
        if not found.is_file():
            return False
        shutil.copyfile(found, to)
        return True


class Ssh:
    """A machine behind OpenSSH's client, with the user's keys and configuration.

    Args:
        url: as in "ssh://user@jetson" or "ssh://jetson:2222".

    Raises:
        UsageError: it is no such address.
    """

    def __init__(self, url: str) -> None:
        self._destination = _destination(url)
        self.name = url

    def run(self, script: str, *, folder: str = "/") -> Finished:
        """Runs a script of the POSIX shell in a folder.

        Raises:
            MissingDependencyError: there is no ssh here.
            NestedgeError: the machine was not reached, or was lost on the way.
        """
        status, output = self._run(f"cd {shlex.quote(folder)} && {{ {script}\n}} 2>&1")
        return Finished(status, output.decode(errors="replace"))

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """An empty folder, which is removed afterwards, unless the machine is lost.

        Raises:
            NestedgeError: none can be made there.
        """
        made = self.run("mktemp -d")
        folder = made.output.strip()
        if made.status != 0 or not _FOLDER.fullmatch(folder):
            raise NestedgeError(f"{self.name}: no folder could be made: {folder}")
        try:
            yield folder
        finally:
            # The error on the way says more than that nothing could be removed either.
            with contextlib.suppress(NestedgeError):
                self.run(f"rm -rf -- {shlex.quote(folder)}")

    def put(self, files: Mapping[str, Path], folder: str) -> None:
        """Copies files into a folder, by tar.

        Raises:
            NestedgeError: they do not fit, or the machine was lost.
        """
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, path in files.items():
                archive.add(path, arcname=name)
        line = f"tar -xf - -C {shlex.quote(folder)} 2>&1"
        status, output = self._run(line, stdin=content.getvalue())
        if status != 0:
            said = output.decode(errors="replace").strip().partition("\n")[0]
            raise NestedgeError(f"{self.name}: copying failed: {said}")

    def get(self, name: str, folder: str, *, to: Path) -> bool:
        """Copies a file from a folder; False where it has none by that name.

        Raises:
            NestedgeError: the machine was lost.
        """
        path = shlex.quote(f"{folder}/{name}")
        status, content = self._run(f"[ -f {path} ] && cat {path}")
        if status == 0:
            to.write_bytes(content)
        return status == 0

    def _run(self, script: str, *, stdin: bytes = b"") -> tuple[int, bytes]:
        """Exit status and stdout of a script there."""
        wrapped = shlex.quote(f"({script}\n); echo __rc=$? >&2")
        command = ["ssh", *_SSH_OPTIONS, *self._destination, f"sh -c {wrapped}"]
        try:
            # Without input of ours, ssh must not wait for the user's.
            done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        except FileNotFoundError as error:
            raise MissingDependencyError(
                "no ssh on this machine: sudo apt-get install openssh-client"
            ) from error
        said = done.stderr.decode(errors="replace")
        statuses = _STATUS.findall(said)
        if not statuses:
            raise NestedgeError(f"{self.name}: {_lost(said, done.stdout)}")
        return int(statuses[-1]), done.stdout


def place(url: str | None) -> Place:
    """The machine at an address; this one where there is none.

    Raises:
        UsageError: it is no address that is understood.
    """
    return Here() if url is None else Ssh(url)


def _destination(url: str) -> tuple[str, ...]:
    example = "expected an address as in ssh://user@jetson or ssh://jetson:2222"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{example}, found {url!r}: {error}") from error
    extra = parts.path or parts.query or parts.fragment or parts.password
    # A name with a leading dash would be one of ssh's options.
    if parts.scheme != "ssh" or not parts.hostname or extra or parts.netloc.startswith("-"):
        raise UsageError(f"{example}, found {url!r}")
    host = parts.hostname if parts.username is None else f"{parts.username}@{parts.hostname}"
    ports = () if port is None else ("-p", str(port))
    return (*ports, "--", host)


def _lost(said: str, output: bytes) -> str:
    """Why ssh ended without the status of the command."""
    last = _last_line(said)
    if "Host key verification failed" in said:
        return "the host key is unknown or changed: log in once by hand, and look at the key"
    if "Permission denied" in said:
        return f"ssh is not let in ({last}): put your key there, as by ssh-copy-id"
    begun = " after it had begun to run" if output else ""
    return f"the connection was lost{begun}: {last or 'ssh said nothing'}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
