"""Worker processes: jobs in parallel, each in a process that it may take down with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from signal import Signals
from threading import Lock
from typing import Any

from nestedge import errors
from nestedge.reasons import diagnosis

Message = dict[str, Any]


class WorkerCrash(Exception):  # noqa: N818
    """A worker ended in the middle of a request.

    Attributes:
        how: in words: by which signal, or with which exit status.
    """

    def __init__(self, status: int) -> None:
        self.how = f"signal {Signals(-status).name}" if status < 0 else f"exit status {status}"
        super().__init__(self.how)
        # Nobody else sends it: the system does, to whoever takes the last of the memory.
        self._is_starved = status == -Signals.SIGKILL

    @property
    def diagnosis(self) -> errors.Diagnosis:
        """The crash as a reason why a cell is not there."""
        code = "out-of-memory" if self._is_starved else "converter-crashed"
        return diagnosis(code, f"the converter crashed: {self.how}")


class Worker:
    """A process that answers requests, one at a time."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            # What this process can import, that one can: plug-ins of tests and checkouts too.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # The order of sets of strings shows in what frameworks write.
            "PYTHONHASHSEED": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nestedge.building.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            # Ctrl-C reaches the whole group, and would be a traceback from each worker.
            start_new_session=True,
        )

    def ask(self, request: Message) -> Iterator[Message]:
        """The answers to a request, as they come.

        Raises:
            WorkerCrash: the process ended before it had answered.
            NestedgeError: the error that the worker met; any of its kinds.
            OSError: the same, about the disk.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerCrash(self._process.wait()) from None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "done" in answer:
                return
            if "error" in answer:
                raise _error(answer)
            yield answer
        raise WorkerCrash(self._process.wait())

    def stop(self) -> None:
        """Ends the process, whatever it is doing; whoever waits for an answer sees a crash."""
        self._process.kill()
        self._process.wait()


class Pool:
    """Workers that are started when they are needed, and used again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: list[Worker] = []
        self._workers: list[Worker] = []
        self._stopped = False

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """A worker that nobody else uses; one that has crashed is not used again.

        Raises:
            CancelledError: the pool has been stopped.
        """
        with self._lock:
            if self._stopped:
                raise CancelledError
            worker = self._idle.pop() if self._idle else Worker()
            if worker not in self._workers:
                self._workers.append(worker)
        yield worker
        with self._lock:
            self._idle.append(worker)

    @property
    def is_stopped(self) -> bool:
        """Whether its workers were ended on purpose."""
        return self._stopped

    def stop(self) -> None:
        """Ends all workers, and starts no more."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.stop()


@dataclass(frozen=True)
class Job:
    """Cells of one level from one converter: most of the work, tracing, is done once for all.

    Attributes:
        request: for a worker, but for its cells.
        cells: what the worker has to know of each; "cell" is its name.
    """

    request: Message
    cells: Sequence[Message]


def run_job(job: Job, pool: Pool) -> Iterator[Message]:
    """What became of each cell of a job; the one that crashes its worker has failed.

    A crash before the first cell is one of tracing, and would be the same for all of them.

    Raises:
        NestedgeError: of a worker, about the network or the calibration data.
        OSError: of a worker, about the disk.
        CancelledError: the pool has been stopped: what is left has neither been made nor failed.
    """
    left = {item["cell"]: item for item in job.cells}
    while left:
        begun = None
        try:
            with pool.worker() as worker:
                for answer in worker.ask({**job.request, "cells": list(left.values())}):
                    if "begun" in answer:
                        begun = answer["begun"]
                        continue
                    left.pop(answer.get("made") or answer["failed"])
                    begun = None
                    yield answer
        except WorkerCrash as crash:
            if pool.is_stopped:
                raise CancelledError from crash
            for failed in [begun] if begun else list(left):
                left.pop(failed)
                yield {"failed": failed, **asdict(crash.diagnosis)}


def run_jobs(
    jobs: Sequence[Job],
    pool: Pool,
    *,
    processes: int,
    after_each: Callable[[Job, Message], None],
) -> None:
    """Run jobs in several processes.

    Args:
        jobs: are begun in this order.
        pool: of workers.
        processes: how many at a time.
        after_each: is called with what became of a cell, never by two threads at once.

    Raises:
        NestedgeError: of a worker, about the network or the calibration data; what is on disk by
            then stays.
        OSError: the same, about the disk.
    """
    turn = Lock()

    def run(job: Job) -> None:
        for answer in run_job(job, pool):
            with turn:
                after_each(job, answer)

    with ThreadPoolExecutor(processes) as threads:
        futures = [threads.submit(run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            # Whoever waits for an answer gets none, and ends.
            pool.stop()
            raise


def _error(answer: Message) -> Exception:
    if answer["error"] == "OSError":
        # A library that does not fit this machine is one without a number.
        if answer["errno"] is None:
            return OSError(answer["message"])
        return OSError(answer["errno"], os.strerror(answer["errno"]), answer["file"])
    kind = getattr(errors, answer["error"])
    assert issubclass(kind, errors.NestedgeError)
    error: Exception = kind(answer["message"])
    return error
