"""One warm tracing process: it imports torch once, answers many requests, and is started again when it dies."""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

from peftselect.errors import InputError
from peftselect.memory.trace import NotTracedError, TracedMemory

if TYPE_CHECKING:
    from peftselect.memory.trace import TraceRequest

#: seconds after which a trace is given up, the imports of a cold process among them
TIME_LIMIT_SECONDS = 300.0
MODULE = "peftselect.memory.tracing.serve"


class _ProcessDiedError(NotTracedError):
    """The tracing process ended without an answer."""


class TraceWorker:
    """A process that traces. Requests and answers are lines of JSON on its standard input and output.

    A native crash or a trace that takes too long costs the process, never the caller: the next request starts another.
    """

    def __init__(self, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> None:
        self.time_limit_seconds = time_limit_seconds
        self._process: subprocess.Popen[str] | None = None
        self._answered = False
        self._answers: queue.Queue[str] = queue.Queue()

    def ask(self, request: TraceRequest) -> TracedMemory:
        """The traced step. NotTracedError when it cannot be had; InputError where the request itself is at fault.

        What killed a process that has answered before may not kill a fresh one, which is asked once more.
        """
        answered_before = self._answered
        try:
            found = self._ask(request)
        except _ProcessDiedError:
            if not answered_before:
                raise
            found = self._ask(request)
        self._answered = True
        return found

    def _ask(self, request: TraceRequest) -> TracedMemory:
        process = self._warm()
        assert process.stdin is not None  # it was opened as a pipe
        try:
            process.stdin.write(json.dumps(request.to_json()) + "\n")
            process.stdin.flush()
        except OSError as error:
            raise _ProcessDiedError(self._buried()) from error
        try:
            line = self._answers.get(timeout=self.time_limit_seconds)
        except queue.Empty:
            self.close()
            raise NotTracedError(f"it took more than {self.time_limit_seconds:g} s") from None
        if not line:
            raise _ProcessDiedError(self._buried())
        document = json.loads(line)
        if "hint" in document:
            raise InputError(document["error"], document["hint"])
        if "error" in document:
            raise NotTracedError(document["error"])
        return TracedMemory(**document)

    @property
    def process_id(self) -> int | None:
        """The process that would answer next, None where one has yet to be started."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _warm(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
            self._answered = False
            self._answers = queue.Queue()
            threading.Thread(target=_pump, args=(self._process, self._answers), daemon=True).start()
        return self._process

    def _buried(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        return f"the tracing process died ({f'signal {-code}' if code < 0 else f'exit {code}'})"


def _pump(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    """Move lines from the process into the queue; an empty one says that it has ended (pipes know no time limits)."""
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


@cache
def shared_worker() -> TraceWorker:
    """The process that all of this program's traces share; it ends with the program."""
    worker = TraceWorker()
    atexit.register(worker.close)
    return worker


def trace_memory(request: TraceRequest) -> TracedMemory:
    """Trace in the shared process, past the cache."""
    return shared_worker().ask(request)
