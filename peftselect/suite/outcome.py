"""What became of a run, and where that is recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from peftselect.errors import DataError
from peftselect.record import RunRecord
from peftselect.results import user_store
from peftselect.training.splits import data_set_name
from peftselect.vocabulary import task_family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from peftselect.record import Status
    from peftselect.suite.definition import Suite, SuiteRun

DONE_BEFORE = "recorded before"
#: where a failed run keeps the whole of its error
LOG_ENDING = ".log"


@dataclass(frozen=True)
class Outcome:
    """A run's status ("running", "recorded before", "ok", "failed", "oom before", ...), with one line where it failed.

    ``placed``: where it ran and with what share of a card, on a cluster.
    """

    run: SuiteRun
    status: str
    record: RunRecord | None = None
    because: str = ""
    placed: str = ""

    @property
    def fine(self) -> bool:
        """Whether there is a score, now or from before."""
        return self.status in ("ok", DONE_BEFORE)


def marks(item: SuiteRun) -> dict[str, str]:
    """How a record says to which run of which suite it belongs."""
    return {"name": item.suite, "key": item.key}


def recorded(suite: Suite, output: Path) -> dict[str, RunRecord]:
    """The records of a suite's runs by key: of finished folders below ``output``, and of the results store.

    Of several records of one run a finished one counts, else the newest. DataError where a run.json is broken.
    """
    found: dict[str, RunRecord] = {}
    for item in suite.runs:
        finished = output / item.key / "run.json"
        if finished.is_file():
            found[item.key] = _read(finished)
    for record in user_store().read(broken=[]):
        mark = record.environment.get("suite")
        if isinstance(mark, dict) and mark.get("name") == suite.name:
            key = str(mark.get("key"))
            found[key] = max(record, found.get(key, record), key=_worth)
    return found


def _read(file: Path) -> RunRecord:
    try:
        return RunRecord.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: not a record ({error})", "remove the folder to run it again") from error


def _worth(record: RunRecord) -> tuple[bool, str]:
    return record.status == "ok", record.created_at or ""


def failed_record(item: SuiteRun, because: str, status: Status = "failed") -> RunRecord:
    """The record of a run that ended before it could write its own: what was asked, and why it failed."""
    asked = item.arguments
    task, train = asked.get("task"), asked.get("train")
    problem = {
        "task": task,
        "family": task and task_family(str(task)),
        "model": asked.get("model"),
        "dataset": train and data_set_name(str(train)),
    }
    candidate: Mapping[str, Any] = {"method": asked.get("method") or "recommended", "hyperparameters": asked["set"]}
    return RunRecord(
        source="peftselect run",
        status=status,
        problem={name: str(value) for name, value in problem.items() if value},
        candidate={name: value for name, value in candidate.items() if value},
        environment={"suite": marks(item)},
        seed=asked.get("seed"),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        note=because,
    )


def remember_failure(item: SuiteRun, because: str) -> Outcome:
    """Put a failed run into the results store."""
    record = failed_record(item, because)
    user_store().append(record)
    return Outcome(item, "failed", record, because)


def failures(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The runs that have no score."""
    return [outcome for outcome in outcomes if not outcome.fine]


def gains(outcomes: Iterable[Outcome]) -> list[tuple[SuiteRun, dict[str, tuple[float, float]]]]:
    """Scores of the base and of the tuned model by metric, for each run that has both."""
    found = []
    for outcome in outcomes:
        record = outcome.record
        if record is not None and record.scores and record.baseline:
            pairs = {
                name: (record.baseline[name].value, score.value)
                for name, score in record.scores.items()
                if name in record.baseline
            }
            found.append((outcome.run, pairs))
    return found
