"""The tracing process: ``python -m peftselect.memory.tracing.worker REQUEST.json ANSWER.json``."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from peftselect.memory.trace import NotTracedError
from peftselect.memory.tracing.answer import answer, read_request


def main(question: Path, target: Path) -> None:
    """Read the request, write the answer or, in one line, why there is none."""
    warnings.filterwarnings("ignore")
    try:
        document = asdict(answer(read_request(json.loads(question.read_text(encoding="utf-8")))))
    except NotTracedError as error:
        document = {"error": str(error)}
    except Exception as error:  # an operation that fake tensors cannot do may fail in any way
        lines = str(error).strip().splitlines() or [""]
        document = {"error": f"{type(error).__name__}: {lines[0][:160]}"}
    target.write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
