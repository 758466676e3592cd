from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from nestedge.errors import MissingDependencyError, NestedgeError, UsageError
from nestedge_tensorrt.places import Finished, Here, Place, Ssh, place
from tests.nestedge_tensorrt.devices import FakeDevice

URL = "ssh://me@jetson"


@pytest.fixture(params=["here", "ssh"])
def somewhere(request: pytest.FixtureRequest, device: FakeDevice) -> Place:
    return Here() if request.param == "here" else Ssh(URL)


@pytest.mark.parametrize(
    ("script", "finished"),
    [
        ("echo one; echo two >&2", Finished(0, "one\ntwo\n")),
        ("exit 7", Finished(7, "")),
        # ssh itself ends with this number where a connection breaks.
        ("exit 255", Finished(255, "")),
        ("printf \"a 'quoted' word\"", Finished(0, "a 'quoted' word")),
        ("echo __rc=0; exit 3", Finished(3, "__rc=0\n")),
        ("cat", Finished(0, "")),
    ],
    ids=["both streams", "status", "255", "quotes", "a forged status", "no input"],
)
def test_a_script_gives_its_output_and_status(
    somewhere: Place, script: str, finished: Finished
) -> None:
    # In a shell of its own: what it does to that is not done to ours.
    assert somewhere.run(f"sh -c {_quoted(script)}") == finished


def test_a_script_that_was_killed_has_the_status_of_that(somewhere: Place) -> None:
    assert somewhere.run("sh -c 'kill -9 $$'").status == 137


def _quoted(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"


def test_files_go_there_and_come_back(somewhere: Place, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\r\n\xff" * 1000)
    with somewhere.folder() as folder:
        somewhere.put({"b c": tmp_path / "a"}, folder)
        assert somewhere.run("ls", folder=folder).output == "b c\n"
        assert somewhere.get("b c", folder, to=tmp_path / "d")
        assert not somewhere.get("missing", folder, to=tmp_path / "e")
    assert (tmp_path / "d").read_bytes() == (tmp_path / "a").read_bytes()
    assert not (tmp_path / "e").exists()
    assert not Path(folder).exists()


def test_a_folder_is_removed_after_an_error(somewhere: Place) -> None:
    made = []
    with contextlib.suppress(ZeroDivisionError), somewhere.folder() as folder:
        made += [Path(folder), Path(folder).is_dir()]
        _ = 1 / 0
    assert made[1]
    assert not Path(str(made[0])).exists()


def test_files_that_do_not_fit_are_told(device: FakeDevice, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(NestedgeError, match=rf"^{URL}: copying failed: tar: .*no-such-folder"):
        Ssh(URL).put({"a": tmp_path / "a"}, "/no-such-folder")


def test_host_keys_are_checked_and_nothing_is_asked(device: FakeDevice) -> None:
    Ssh("ssh://me@jetson:2222").run("true")
    call = device.calls("ssh")[0]
    assert "-o StrictHostKeyChecking=yes" in call
    assert "-o BatchMode=yes" in call
    assert " -p 2222 -- me@jetson sh -c " in call


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("denied", r"ssh is not let in \(me@jetson: Permission denied \(publickey\)\.\): put your"),
        ("unknown", "the host key is unknown or changed: log in once by hand"),
        ("refused", "the connection was lost: ssh: connect to host me@jetson port 22: Connection"),
        ("silent", "the connection was lost: ssh said nothing"),
    ],
)
def test_a_machine_that_is_not_reached_is_told_with_the_reason(
    device: FakeDevice, mode: str, message: str
) -> None:
    device.say("ssh.mode", mode)
    with pytest.raises(NestedgeError, match=f"^{URL}: {message}"):
        Ssh(URL).run("true")


def test_a_connection_that_breaks_is_no_failure_of_the_script(device: FakeDevice) -> None:
    device.say("ssh.mode", "lost")
    with pytest.raises(NestedgeError, match="lost after it had begun to run: Connection to me@jet"):
        Ssh(URL).run("trtexec --skipInference")


def test_a_missing_ssh_is_named(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no-such-folder")
    with pytest.raises(MissingDependencyError, match="apt-get install openssh-client"):
        Ssh(URL).run("true")


@pytest.mark.parametrize(
    "url",
    [
        *("jetson", "http://jetson", "ssh://", "ssh://-oProxyCommand=x", "ssh://jetson/path"),
        *("ssh://me:secret@jetson", "ssh://jetson:port", "ssh://jetson?x=1"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected an address as in ssh://user@jetson"):
        place(url)


def test_no_address_is_this_machine() -> None:
    assert place(None).name == "this machine"
    assert place(URL).name == URL
