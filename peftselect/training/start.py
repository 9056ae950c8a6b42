"""The way into a run: the output folder first, torch after it, and again with less where memory runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.training import degrade, ranks
from peftselect.training.interrupts import listening
from peftselect.training.output import staging
from peftselect.training.unfinished import forget, saving, write_order

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.training.interrupts import Stopper
    from peftselect.training.job import RunResult
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer


def start(plan: RunPlan, observer: Observer | None = None) -> RunResult:
    """Run ``plan``: its output folder appears whole at the end, or not at all.

    The folder is tried before the libraries are loaded, so that one which cannot be written costs no waiting. Ctrl-C
    and SIGTERM while training save what a later sitting goes on from; then Interrupted is raised. Where memory runs
    out the next cheaper recipe is tried, from the newest checkpoint on where that serves, unless the order forbids it.
    """
    from peftselect.training.progress import Silent

    told = observer if observer is not None and ranks.is_first() else Silent()
    staged = staging(plan.output, plan.overwrite, resumed=plan.resumed)
    with ranks.telling_once(), listening() as stopper, staged as work:
        told.stage("loading torch, transformers and peft")
        if plan.probe is not None:
            plan = _probed(plan, work, told, stopper)
        while True:
            result = _attempt(plan, work, told, stopper)
            if not isinstance(result, degrade.RanOutError):
                return result
            # where memory runs out in one of several processes, the others are in the middle of a step
            lighter = degrade.cheaper(plan) if plan.order.degrade and ranks.count() == 1 else None
            if lighter is None:
                forget(work)
                raise result
            told.stage(lighter.trail[-1])
            if not degrade.goes_on(plan, lighter):
                forget(work)
            plan = lighter


def _probed(plan: RunPlan, work: Path, observer: Observer, stopper: Stopper) -> RunPlan:
    with saving(work):
        write_order(work, plan)
    from peftselect.training.progress import hush

    hush()
    from peftselect.training.probing import probe

    return probe(plan, work, observer, stopper)


def _attempt(plan: RunPlan, work: Path, observer: Observer, stopper: Stopper) -> RunResult | degrade.RanOutError:
    """The result, or the error without its traceback, which would keep the model in memory."""
    from peftselect.training.progress import hush

    with saving(work):
        write_order(work, plan)
    hush()
    from peftselect.training.job import train

    try:
        return train(plan, work, observer, stopper)
    except degrade.RanOutError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
