"""Runs of a suite on one machine, several at once, each in a process that may die without harm to the others."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from peftselect.record import RunRecord
from peftselect.suite.outcome import Outcome, remember_failure
from peftselect.training.interrupts import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from peftselect.suite.definition import SuiteRun

MODULE = "peftselect.suite.worker"
#: what a process gets to save its run after it was told to stop
STOP_SECONDS = 60.0
_THREADS = "OMP_NUM_THREADS"


def run_in_processes(
    runs: Sequence[SuiteRun],
    output: Path,
    processes: int,
    began: Callable[[Outcome], None],
    ended: Callable[[Outcome], None],
) -> None:
    """Do ``runs``, at most ``processes`` at once, in the order given; both functions are called in this thread.

    A process that dies costs its run alone, which is recorded as failed. When this thread is interrupted the processes
    are told to save and stop.
    """
    output.mkdir(parents=True, exist_ok=True)
    waiting: queue.SimpleQueue[SuiteRun] = queue.SimpleQueue()
    for item in runs:
        waiting.put(item)
    told: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    workers = [_Worker(number, output, _environment(processes)) for number in range(min(processes, len(runs)))]
    threads = [threading.Thread(target=_serve, args=(worker, waiting, told), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        with listening():  # SIGTERM, too, ends what follows
            left = len(threads)
            while left:
                news = told.get()
                if isinstance(news, BaseException):
                    raise news
                if news is None:
                    left -= 1
                else:
                    (began if news.status == "running" else ended)(news)
    finally:
        for worker in workers:
            worker.tell_to_stop()
        for worker in workers:
            worker.stop()


def _serve(
    worker: _Worker,
    waiting: queue.SimpleQueue[SuiteRun],
    told: queue.SimpleQueue[Outcome | BaseException | None],
) -> None:
    """Hand runs to one process until there are none; what goes wrong here is told as well."""
    try:
        while not worker.stopped:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                break
            told.put(Outcome(item, "running"))
            outcome = worker.ask(item)
            if outcome is not None:
                told.put(outcome)
        told.put(None)
    except BaseException as error:
        told.put(error)


def _environment(processes: int) -> dict[str, str]:
    """Processes share the processor's cores, unless somebody has set how many threads each takes."""
    share = max((os.cpu_count() or 1) // processes, 1)
    return {**({_THREADS: str(share)} if processes > 1 else {}), **os.environ}


class _Worker:
    """One process, started when it is first needed and again when it has died; its noise goes into a log."""

    def __init__(self, number: int, output: Path, environment: dict[str, str]) -> None:
        self.stopped = False
        self._output, self._log, self._environment = output, output / f"worker-{number}.log", environment
        self._process: subprocess.Popen[str] | None = None

    def ask(self, item: SuiteRun) -> Outcome | None:
        """What became of the run; None where the process was told to stop meanwhile."""
        process = self._warm()
        assert process.stdin is not None and process.stdout is not None  # they were opened as pipes
        request = {"suite": item.suite, "arguments": item.arguments, "folder": str(self._output / item.key)}
        try:
            process.stdin.write(json.dumps(request, default=str) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if line:
            reply = json.loads(line)
            record = reply["record"] and RunRecord.from_json(reply["record"])
            return Outcome(item, reply["status"], record, reply["because"])
        code = process.wait()
        self._process = None
        if self.stopped:
            return None
        why = f"exit {code}" if code >= 0 else f"signal {-code}"
        why += ", for want of memory perhaps" if code == -signal.SIGKILL else ""
        return remember_failure(item, f"its process died ({why}); see {self._log.name}")

    def tell_to_stop(self) -> None:
        """Ask the process to save what it does and end."""
        self.stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait until the process has saved and ended, and no longer than that may take."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _warm(self) -> subprocess.Popen[str]:
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C reaches this process alone, which then tells the others once
                )
        return self._process
