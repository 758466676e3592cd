from __future__ import annotations

import logging
import sys
import warnings

import pytest

from nestedge_onnx.quiet import quiet


def _talk() -> None:
    logging.warning("advice")
    warnings.warn("advice", stacklevel=1)
    sys.stdout.write("progress\n")
    sys.stderr.write("progress\n")
    raise KeyError


def test_what_libraries_say_is_dropped_and_the_loggers_are_as_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, disabled = list(root.handlers), root.manager.disable
    with pytest.raises(KeyError), quiet():
        _talk()
    assert (root.handlers, root.manager.disable) == (handlers, disabled)
    assert capfd.readouterr() == ("", "")
