"""The tracing process: a request a line on standard input, an answer a line on standard output, until input ends."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from typing import IO, Any

from peftselect.errors import InputError
from peftselect.memory.trace import NotTracedError
from peftselect.memory.tracing.answer import answer, read_request
from peftselect.memory.tracing.fast import fast_answer

#: what torch raises where fake tensors cannot stand for real ones
VALUES_NEEDED = {
    "DataDependentOutputException", "DynamicOutputShapeException", "UnsupportedFakeTensorException",
}  # fmt: skip


def reply(line: str) -> dict[str, Any]:
    """The answer to one request: its numbers, or in one line why there are none."""
    try:
        request = read_request(json.loads(line))
        return asdict(fast_answer(request) if request.fast else answer(request))
    except NotTracedError as error:
        return {"error": str(error)}
    except InputError as error:
        return {"error": error.message, "hint": error.hint}
    except Exception as error:  # an operation that fake tensors cannot do may fail in any way
        lines = str(error).strip().splitlines() or [""]
        if type(error).__name__ in VALUES_NEEDED:
            return {"error": f"it reads values of tensors, of which a trace has the shapes alone ({lines[0][:80]})"}
        return {"error": f"peft or transformers stopped with {type(error).__name__}: {lines[0][:160]}"}


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer until there are no more requests."""
    for line in requests:
        answers.write(json.dumps(reply(line)) + "\n")
        answers.flush()


def main() -> None:
    """Keep the real standard output for answers; whatever a library prints goes nowhere."""
    warnings.filterwarnings("ignore")
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
