"""Benchmark suites: what is to be run, run once each and recorded, on this machine's processes or on many machines.

A run that is in the results store under its suite and key, or whose output folder is finished, is not run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.suite.definition import (
    Suite,
    SuiteRun,
    as_run_arguments,
    differences,
    load_suite,
    shipped_suites,
)
from peftselect.suite.outcome import DONE_BEFORE, Outcome, failures, gains, recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "DONE_BEFORE",
    "Outcome",
    "Suite",
    "SuiteRun",
    "as_run_arguments",
    "differences",
    "failures",
    "gains",
    "load_suite",
    "run_suite",
    "shipped_suites",
]


def run_suite(
    suite: Suite,
    output: Path,
    *,
    processes: int = 1,
    ray: str | None = None,
    card_gib: float | None = None,
    retry: bool = False,
    report: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Run what has not been run, each into ``output``/KEY, and return an outcome for every run, in the suite's order.

    ``processes`` runs go on at once on this machine; ``ray`` is the address of a cluster that takes them all, on whose
    cards (of ``card_gib`` each, where that cannot be read) several share one. A run that failed, diverged or ran out of
    memory is recorded as such, and tried again with ``retry``. ``report`` hears of every run that begins (status
    "running") and ends. InputError where there is no such cluster, or no Ray.
    """
    known = recorded(suite, output)
    outcomes: dict[str, Outcome] = {}
    for item in suite.runs:
        record = known.get(item.key)
        if record is not None and (record.status == "ok" or not retry):
            status = DONE_BEFORE if record.status == "ok" else f"{record.status} before"
            outcomes[item.key] = Outcome(item, status, record, "" if record.status == "ok" else record.note)
            report(outcomes[item.key])
    left = list({item.key: item for item in suite.runs if item.key not in outcomes}.values())

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.run.key] = outcome
        report(outcome)

    if left and ray is not None:
        from peftselect.suite.cluster import run_on_cluster

        run_on_cluster(left, output, ray, card_gib, report, ended)
    elif left:
        from peftselect.suite.processes import run_in_processes

        run_in_processes(left, output, processes, report, ended)
    return [outcomes[item.key] for item in suite.runs if item.key in outcomes]
