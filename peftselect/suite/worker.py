"""A process that does runs of a suite: a line of JSON asks for one, a line of JSON says what became of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from peftselect.suite.definition import SuiteRun
from peftselect.suite.execution import attempt


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do one run; status, reason and record come back.

    A request has the ``suite``, the run's ``arguments`` and the ``folder`` to write, and may have ``more`` arguments
    (which are no part of the run's key) and the ``place`` where it runs.
    """
    item = SuiteRun(request["suite"], request["arguments"])
    outcome = attempt(item, Path(request["folder"]), request.get("more") or {}, request.get("place") or {})
    record = outcome.record and outcome.record.to_json()
    return {"status": outcome.status, "because": outcome.because, "record": record}


def main(requests: IO[str], answers: IO[str]) -> None:
    """Answer until there are no more requests, or somebody stops the process."""
    for line in requests:
        try:
            reply = answer(json.loads(line))
        except KeyboardInterrupt:
            return
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    # answers go where standard output went; what libraries print goes to standard error
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.stdin, channel)
