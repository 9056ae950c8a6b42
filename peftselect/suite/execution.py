"""One run of a suite, whatever becomes of it: the part that a process or a cluster's worker does."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect.errors import PeftSelectError
from peftselect.results import user_store
from peftselect.suite.definition import as_run_arguments
from peftselect.suite.outcome import LOG_ENDING, Outcome, marks, remember_failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peftselect.record import RunRecord
    from peftselect.suite.definition import SuiteRun


def attempt(item: SuiteRun, folder: Path, more: Mapping[str, Any], place: Mapping[str, Any]) -> Outcome:
    """Run ``item`` into ``folder``, from its checkpoint on where an earlier sitting left one.

    What fails is recorded: a run out of memory and a diverged one by the training itself, anything else here, with the
    traceback of what is no user's error in ``folder``.log. Only an interruption (Ctrl-C, SIGTERM) gets through.
    ``more`` are arguments that are no part of the run's key, ``place`` is what the record says of where it ran.
    """
    try:
        record = _run(item, folder, more, place)
    except PeftSelectError as error:
        if not error.run_status:
            return Outcome(item, "not run", because=error.message)
        if error.run_status == "failed":
            return remember_failure(item, error.message)
        return Outcome(item, error.run_status, _newest(item), error.message)
    except Exception as error:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.with_name(folder.name + LOG_ENDING).write_text(traceback.format_exc(), encoding="utf-8")
        why = next(iter(str(error).splitlines()), "")
        return remember_failure(item, f"{type(error).__name__}: {why}")
    return Outcome(item, record.status, record)


def _run(item: SuiteRun, folder: Path, more: Mapping[str, Any], place: Mapping[str, Any]) -> RunRecord:
    from peftselect import api
    from peftselect.training.start import start
    from peftselect.training.unfinished import newest, work_folder

    if newest(work_folder(folder)) is not None:
        try:
            plan = api.plan_resumed(folder)
        except PeftSelectError:  # other data, or another version: it is begun anew
            pass
        else:
            return start(replace(plan, order=replace(plan.order, suite={**marks(item), **place}))).record
    arguments = {**as_run_arguments(item.arguments), **more}
    return api.run(**arguments, output=folder, overwrite=True, suite={**marks(item), **place}).record


def _newest(item: SuiteRun) -> RunRecord | None:
    """The record that the training itself has written of a run which failed."""
    records = user_store().read(broken=[])
    mine = [record for record in records if marks(item).items() <= record.environment.get("suite", {}).items()]
    return max(mine, key=lambda record: record.created_at or "", default=None)
