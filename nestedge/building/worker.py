"""A process that makes cells.

One of several, because neither torch.onnx nor litert_torch can run in two threads, and because a
framework that crashes must not take the build with it. It reads one JSON request a line from
stdin, and answers in JSON lines on what was its stdout; what frameworks print goes to a log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, TextIO

from nestedge.errors import MissingDependencyError, NestedgeError, UsageError

Serve = Callable[[dict[str, Any]], Iterator[dict[str, Any]]]


def main() -> None:
    """Serve requests until stdin ends, which it also does when the parent is killed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    serve: Serve | None = None
    while True:
        request = json.loads(requests.get())
        try:
            serve = serve or _service()
            for answer in serve(request):
                _say(answers, answer)
        except (NestedgeError, OSError, ValueError) as error:
            _say(answers, _as_answer(error))
        else:
            _say(answers, {"done": True})


def _read(requests: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    # Nobody is left to build for, and a conversion may be in the middle of minutes of C++.
    os._exit(0)


def _service() -> Serve:
    try:
        from nestedge.building.service import Service
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"'nestedge build' needs {error.name}: pip install 'nestedge[convert]'"
        ) from error
    return Service().serve


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _as_answer(error: Exception) -> dict[str, Any]:
    """An error, to be raised again by the parent."""
    if isinstance(error, OSError):
        told = {"errno": error.errno, "file": str(error.filename or ""), "message": str(error)}
        return {"error": "OSError", **told}
    kind = type(error) if isinstance(error, NestedgeError) else UsageError
    return {"error": kind.__name__, "message": str(error)}


if __name__ == "__main__":
    main()
